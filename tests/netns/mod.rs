//! Tests in network namespaces. They need root, and say SKIPPED without it.

mod iq; // the daemon: restart, reload, dry run, questions, damaged state
mod lab_itself;
