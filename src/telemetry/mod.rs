//! What was seen: per-source sums of one window, made from readings of the source table. Pure.

mod meter;
mod order;
mod sample;

pub use meter::{Meter, Row, Samples, Shape};
pub use order::{InOrder, Key, Order};
pub use sample::{
    Coverage, Sample, Traffic, Window, linear_count, linear_count_of_32, linear_ones,
};
