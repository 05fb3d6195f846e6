//! `kernloom iq` and its lists where the data plane, or an operator, has another say.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;

use nix::sys::stat::Mode;
use serde_json::Value;

use super::iq::{SOON, ask, lab, start};
use crate::lab::{Lab, wait_until};

/// Writes the whitelist as one file in the place of another.
fn whitelist(lab: &Lab, text: &str) {
    fs::create_dir_all(lab.state_dir()).unwrap();
    fs::set_permissions(lab.state_dir(), PermissionsExt::from_mode(0o700)).unwrap();
    let new = lab.state_dir().join("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, lab.state_dir().join("whitelist.txt")).unwrap();
}

fn owner(lab: &Lab, source: &str) -> Value {
    let told = ask(lab, &format!("shield verdict {source} --json")).out;
    let told: Value = serde_json::from_str(&told).unwrap();
    told["entry"]["owner"].clone()
}

fn wait_exempt(lab: &Lab, source: &str) {
    wait_until(SOON, &format!("the exemption of {source}"), || {
        Ok(owner(lab, source) == "iq")
    })
    .unwrap();
}

#[test]
fn a_list_is_read_again_however_it_came_into_its_place() {
    let Some(lab) = lab("placed", 0) else { return };
    whitelist(&lab, "192.0.2.1\n");
    let path = lab.state_dir().join("whitelist.txt");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let mut iq = start(&lab, &["--dry-run=false"]);
    iq.wait_line(SOON, "others than its owner may write it")
        .unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    wait_exempt(&lab, "192.0.2.1");
    let target = lab.dir().join("target");
    fs::write(&target, "192.0.2.2\n").unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    wait_exempt(&lab, "192.0.2.2");
    fs::write(&target, "192.0.2.33\n").unwrap();
    wait_exempt(&lab, "192.0.2.33");
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    iq.wait_line(SOON, "whitelist.txt: is not a regular file")
        .unwrap();
    assert_eq!(owner(&lab, "192.0.2.33"), "iq");
}

/// It attached to what the operator had let go of, because something else was attached.
#[test]
fn told_to_attach_nothing_it_attaches_nothing_and_says_what_is_missing() {
    let Some(lab) = lab("noattach", 0) else {
        return;
    };
    let net = &lab.server().net;
    net.ip("link add eth1 type veth peer name eth1p\nlink set eth1 up")
        .unwrap();
    let said = ask(&lab, "shield attach eth0 --no-guard");
    assert_eq!(said.code, Some(0), "{said:?}");
    for (more, waited) in [("", ""), (" --wait=300ms", " (waited 300ms)")] {
        let words = format!("iq --profile=idp --iface=eth0,eth1 --no-attach{more}");
        let said = ask(&lab, &words);
        assert_eq!(said.code, Some(1), "{said:?}");
        let told = format!(
            "not attached to eth1, and --no-attach attaches nothing; start with 'kernloom shield attach \
             eth1'{waited}"
        );
        assert!(said.err.contains(&told), "{said:?}");
    }
    let status = ask(&lab, "shield status").out;
    assert!(!status.contains("eth1"), "{status}");
}
