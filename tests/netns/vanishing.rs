//! What IQ says and does when the ground under it changes.

use std::time::Duration;

use super::binary;
use crate::lab::{Assault, Attack, Family, Flood, Kernloom, Lab, Plan, Stage, wait_until};

const SOON: Duration = Duration::from_secs(30);

fn lab(name: &str) -> Option<Lab> {
    Lab::for_test(
        name,
        &Plan {
            clients: &["evil"],
            office_hosts: 0,
        },
    )
}

fn wait_said(iq: &mut Kernloom, what: &str) {
    wait_until(SOON, what, || {
        iq.check_running()?;
        Ok(iq.text().contains(what))
    })
    .unwrap();
}

#[test]
fn an_interface_that_vanishes_is_missed_and_protected_when_it_returns() {
    let Some(lab) = lab("vanish") else { return };
    let server = &lab.server().net;
    let make = "link add v0 type veth peer name v1\nlink set v0 up\nlink set v1 up";
    server.ip(make).unwrap();
    let attach = Kernloom::run(&lab, binary(), &["shield", "attach", "v0"]).unwrap();
    assert!(attach.contains("v0: attached in driver mode"), "{attach}");
    let mut iq = Kernloom::iq(&lab, binary(), &["--profile=idp"]).unwrap();
    wait_said(&mut iq, "a tick every");
    server.ip("link del v0").unwrap();
    wait_said(&mut iq, "v0 is gone; it is protected again when it returns");
    server.ip(make).unwrap();
    wait_until(SOON, "v0 to be attached again", || {
        let status = Kernloom::run(&lab, binary(), &["shield", "status"])?;
        Ok(status.contains("v0: attached in driver mode"))
    })
    .unwrap();
    // Taken away on purpose it is not brought back, but said.
    Kernloom::run(&lab, binary(), &["shield", "detach", "v0"]).unwrap();
    wait_said(&mut iq, "v0 was detached and is not protected");
    let left = Kernloom::run(&lab, binary(), &["shield", "detach", "--all", "--purge"]).unwrap();
    assert!(left.contains("eth0: detached"), "{left}");
    let status = iq.process().wait(SOON).unwrap();
    assert_eq!(status.code(), Some(0), "{}", iq.text());
    let why = "stopping: the operator removed the data plane";
    assert!(iq.text().contains(why), "{}", iq.text());
}

#[test]
fn an_entry_of_the_operator_that_has_ended_protects_nobody() {
    let Some(lab) = lab("ended") else { return };
    let evil = lab.source("evil", Family::V4).unwrap();
    let deny = ["shield", "deny", "add", &evil, "--ttl", "1s"];
    Kernloom::run(&lab, binary(), &["shield", "attach", "eth0"]).unwrap();
    Kernloom::run(&lab, binary(), &deny).unwrap();
    wait_until(SOON, "the denial to end", || {
        let list = Kernloom::run(&lab, binary(), &["shield", "deny", "list"])?;
        Ok(list.contains("ended"))
    })
    .unwrap();
    let mut iq =
        Kernloom::iq(&lab, binary(), &["--profile=web-server", "--dry-run=false"]).unwrap();
    let assault = Assault::Flood {
        flood: Flood::Syn4,
        packets: 12_000,
        gap: Duration::from_micros(200),
    };
    let _attack = Attack::launch(&lab, "evil", assault).unwrap();
    iq.wait_transition(SOON, &evil, |step| step.to > Stage::Observe)
        .unwrap();
    let held = Kernloom::run(&lab, binary(), &["shield", "limit", "list"]).unwrap();
    assert!(held.contains(&evil) && held.contains(" iq "), "{held}");
}
