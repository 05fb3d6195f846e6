use kernloom::dataplane::{AllowOnly, Reason};

use super::{Plane, ip};
use crate::packet::Frame;

#[test]
fn debug_routing() {
    let source = ip("2001:db8:1:2::7");
    for chain in [vec![43u8], vec![43, 135], vec![43, 135, 135], vec![43,60,60,60,60,60,60]] {
        let plane = Plane::new();
        let frame = Frame::syn(source, 443).extensions(&chain).build();
        let a = plane.send(&frame);
        plane.shield.set_allow_only(AllowOnly::On, &plane.lock);
        let b = plane.send(&frame);
        eprintln!("{chain:?} {a} {b}");
    }
}
