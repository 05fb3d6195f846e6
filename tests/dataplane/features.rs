//! What a load-time choice leaves out is not there.

use kernloom::dataplane::{Features, LoadOptions, Reason};

use super::{Plane, families};
use crate::packet::Frame;

/// W46 and W47: every profile paid for every map.
#[test]
fn w46_light_judges_alike_and_has_neither_maps_nor_sketches_to_pay_for() {
    let light = Plane::with(LoadOptions {
        features: Features::Light,
        ..LoadOptions::default()
    });
    let learn = Plane::new();
    for source in families() {
        for plane in [&light, &learn] {
            assert_eq!(plane.syn(source), Reason::Pass);
        }
        let rows = [&light, &learn].map(|plane| plane.row(plane.tracked(source)).unwrap());
        assert_eq!(rows.map(|row| (row.packets, row.syns)), [(1, 1); 2]);
        assert_eq!(rows.map(|row| row.ports.count_ones()), [0, 1]);
        assert_eq!(rows.map(|row| row.stacks.count_ones()), [0, 1]);
    }
    assert!(light.shield.events().unwrap().is_none());
    assert!(light.shield.ports().unwrap().is_none());
    let [light, learn] = [light, learn].map(|plane| plane.shield.memory().unwrap());
    assert!(light < learn, "{light} {learn}");
    assert!(learn <= 16 << 20, "{learn}");
}

#[test]
fn a_setting_for_small_machines_fits_in_8_megabytes() {
    let plane = Plane::with(LoadOptions {
        features: Features::Light,
        sources: 65_536,
        ..LoadOptions::default()
    });
    let memory = plane.shield.memory().unwrap();
    assert!(memory <= 8 << 20, "{memory}");
    assert_eq!(
        plane.send(&Frame::syn(families()[0], 80).build()),
        Reason::Pass
    );
}
