//! The data plane by hand: attach, judge, detach, with real packets from real hosts.

use std::time::Duration;

use super::binary;
use crate::lab::{Assault, Attack, Family, Flood, Kernloom, Lab, Plan, Said, wait_until};

const SOON: Duration = Duration::from_secs(30);

fn lab(name: &str, clients: &[&str]) -> Option<Lab> {
    Lab::for_test(
        name,
        &Plan {
            clients,
            office_hosts: 0,
        },
    )
}

fn ask(lab: &Lab, words: &str) -> Said {
    Kernloom::ask(lab, binary(), &words.split(' ').collect::<Vec<_>>()).unwrap()
}

/// What it printed, after it succeeded.
fn told(lab: &Lab, words: &str) -> String {
    let said = ask(lab, words);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{words}");
    said.out
}

/// Whether `client` gets an answer of the server to a ping.
fn answered(lab: &Lab, client: &str, family: Family) -> bool {
    let server = match family {
        Family::V4 => lab.server().v4.to_string(),
        Family::V6 => lab.server().v6.to_string(),
    };
    let ping = ["-n", "-q", "-c1", "-W1", &server];
    lab.client(client).unwrap().net.run("ping", &ping).is_ok()
}

#[test]
fn attaching_twice_is_attaching_once_and_outlives_the_command() {
    let Some(lab) = lab("attach", &[]) else {
        return;
    };
    assert_eq!(
        told(&lab, "shield attach eth0"),
        "eth0: attached in driver mode\n"
    );
    let links = || lab.server().net.run("ip", &["link", "show", "eth0"]);
    let before = links().unwrap();
    assert!(before.contains("xdp"), "{before}");
    assert_eq!(
        told(&lab, "shield attach eth0"),
        "eth0: already attached in driver mode\n"
    );
    assert_eq!(links().unwrap(), before, "another program was attached");
    // Without a name: the interface of the default route.
    assert_eq!(
        told(&lab, "shield attach"),
        "eth0: already attached in driver mode\n"
    );
    let status = told(&lab, "shield status");
    let mut lines = status.lines();
    assert_eq!(lines.next(), Some("eth0: attached in driver mode"));
    assert_eq!(
        told(&lab, "shield detach"),
        "eth0: detached\npolicy and counters kept; 'kernloom shield detach --purge' forgets them\n"
    );
    assert!(!links().unwrap().contains("xdp"));
    assert_eq!(
        told(&lab, "shield detach --purge"),
        "policy and counters forgotten\n"
    );
    let gone = ask(&lab, "shield status");
    assert_eq!(gone.code, Some(2));
    assert!(gone.err.contains("nothing is loaded in"), "{gone:?}");
}

#[test]
fn options_may_be_said_again_but_not_others() {
    let Some(lab) = lab("again", &[]) else {
        return;
    };
    let words = "shield attach eth0 --features light --sources 16384 --max-deny 8192";
    assert_eq!(told(&lab, words), "eth0: attached in driver mode\n");
    assert_eq!(told(&lab, words), "eth0: already attached in driver mode\n");
    for (words, what) in [
        ("shield attach eth0 --features learn", "with other features"),
        ("shield attach eth0 --sources 32768", "with other sizes"),
    ] {
        let refused = ask(&lab, words);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.err.contains(what), "{refused:?}");
    }
    told(&lab, "shield detach --purge");
}

#[test]
fn a_driver_without_xdp_falls_back_to_generic_mode_and_says_why() {
    let Some(lab) = lab("generic", &[]) else {
        return;
    };
    let refused = ask(&lab, "shield attach lo --mode driver");
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("lo refuses XDP in driver mode")
            && refused.err.contains("--mode generic works"),
        "{refused:?}"
    );
    let said = told(&lab, "shield attach lo");
    assert!(
        said.starts_with("lo: attached in generic mode (driver mode refused: "),
        "{said}"
    );
}

#[test]
fn another_xdp_program_is_named_and_left_alone() {
    let Some(lab) = lab("foreign", &[]) else {
        return;
    };
    // A second instance is as foreign as any other program.
    let attach = |who: &str, mode: &str| {
        let bpffs = lab.bpffs().join(who);
        std::fs::create_dir_all(&bpffs).unwrap();
        let server = &lab.server().net;
        let mut command = server.command(&binary().to_string_lossy());
        command.args([
            "shield",
            "attach",
            "eth0",
            "--no-guard",
            "--mode",
            mode,
            "--bpffs",
        ]);
        let output = command.arg(bpffs).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let theirs = (Some(0), "eth0: attached in driver mode\n".to_owned());
    assert_eq!(attach("theirs", "auto"), theirs);
    for mode in ["driver", "generic"] {
        let (code, text) = attach("ours", mode);
        assert_eq!(code, Some(1), "{text}");
        assert!(
            text.contains("eth0 already runs XDP program 'kernloom' (id "),
            "{text}"
        );
        // What failed to attach leaves nothing loaded.
        assert!(!lab.bpffs().join("ours").exists());
    }
    let (code, text) = attach("ours", "auto");
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("attached in tc mode (the XDP hook is taken by XDP program 'kernloom' (id "),
        "{text}"
    );
    let still = (
        Some(0),
        "eth0: already attached in driver mode\n".to_owned(),
    );
    assert_eq!(attach("theirs", "auto"), still);
}

#[test]
fn a_denied_source_is_silent_and_others_are_served() {
    let Some(lab) = lab("deny", &["good", "evil"]) else {
        return;
    };
    told(&lab, "shield attach eth0");
    for family in [Family::V4, Family::V6] {
        let source = lab.source("evil", family).unwrap();
        assert!(answered(&lab, "evil", family));
        assert_eq!(
            told(&lab, &format!("shield deny add {source}")),
            format!("{source} deny, by operator, ends never\n")
        );
        assert!(!answered(&lab, "evil", family), "{source} was denied");
        assert!(answered(&lab, "good", family));
        assert_eq!(
            told(&lab, "shield deny list"),
            crate::netns::aligned(&[
                ["SOURCE", "ACTION", "OWNER", "ENDS", "REASON"],
                [&source, "deny", "operator", "never", ""],
            ])
        );
        assert_eq!(
            told(&lab, &format!("shield deny del {source}")),
            format!("removed: {source} deny, by operator, ends never\n")
        );
        assert!(answered(&lab, "evil", family), "{source} was freed");
    }
    let unknown = ask(&lab, "shield deny del 192.0.2.1");
    assert_eq!(
        (unknown.code, unknown.err.as_str()),
        (
            Some(2),
            "kernloom: 192.0.2.1 has no such entry; 'list' shows those there are. Nothing was removed\n"
        )
    );
}

#[test]
fn a_denial_with_an_end_ends_with_nothing_running() {
    let Some(lab) = lab("expiry", &["evil"]) else {
        return;
    };
    told(&lab, "shield attach eth0");
    let source = lab.source("evil", Family::V4).unwrap();
    told(&lab, &format!("shield deny add {source} --ttl 3s"));
    assert!(!answered(&lab, "evil", Family::V4));
    wait_until(SOON, "the denial to end", || {
        Ok(answered(&lab, "evil", Family::V4))
    })
    .unwrap();
}

#[test]
fn a_limit_passes_its_rate_and_no_more() {
    let Some(lab) = lab("limits", &["evil"]) else {
        return;
    };
    told(&lab, "shield attach eth0");
    let source = lab.source("evil", Family::V4).unwrap();
    assert_eq!(
        told(&lab, &format!("shield limit set {source} --pps 100")),
        format!("{source} limit-all:100pps/100, by operator, ends never\n")
    );
    let assault = Assault::Flood {
        flood: Flood::Udp4,
        packets: 4_000,
        gap: Duration::from_micros(500),
    };
    let mut attack = Attack::launch(&lab, "evil", assault).unwrap();
    attack.finish(SOON).unwrap();
    let span = crate::lab::now() - attack.began;
    let count = |reason: &str| -> f64 {
        let stats = told(&lab, "shield stats");
        let line = stats.lines().find(|line| line.starts_with(reason)).unwrap();
        line.split_whitespace().nth(2).unwrap().parse().unwrap()
    };
    let (passed, dropped) = (count("within-limit"), count("limit"));
    assert!(passed + dropped >= 4_000.0, "{passed} + {dropped}");
    // The burst, the rate for as long as it can have lasted, and one.
    let most = 100.0 + 100.0 * span.as_secs_f64() + 1.0;
    assert!((100.0..=most).contains(&passed), "{passed} of {most}");
}
