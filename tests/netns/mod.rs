//! Tests in network namespaces. They need root, and say SKIPPED without it.

mod lab_itself;
mod shield;
