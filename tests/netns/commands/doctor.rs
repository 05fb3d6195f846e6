//! What the doctor finds is what the other commands meet.

use super::Bench;

/// The line of a subject, and its mend below it, if there is one.
fn finding(said: &str, subject: &str) -> (String, String) {
    let mut lines = said.lines();
    let line = lines.find(|line| line[10..].starts_with(&format!("{subject} ")));
    let mend = lines
        .next()
        .and_then(|line| line.trim().strip_prefix("mend: "));
    (
        line.unwrap_or_else(|| panic!("no {subject}: {said}"))
            .to_owned(),
        mend.unwrap_or_default().to_owned(),
    )
}

/// Being root was taken for every right, and a missing one blamed on sudo and locked memory.
#[test]
fn the_doctor_and_attach_name_the_capability_that_is_missing() {
    let Some(bench) = Bench::new("rights") else {
        return;
    };
    for (given, missing) in [
        ("+bpf,+net_admin", "CAP_PERFMON"),
        ("+bpf,+perfmon", "CAP_NET_ADMIN"),
        ("+net_admin,+perfmon", "CAP_BPF"),
        ("+net_admin", "CAP_BPF and CAP_PERFMON"),
    ] {
        let said = bench.say_with_only(given, &["shield", "doctor", "eth0"]);
        assert_eq!(said.code, 1, "{given}: {}{}", said.out, said.err);
        let (found, mend) = finding(&said.out, "rights");
        assert_eq!(found, format!("prevents  rights     {missing} missing"));
        assert!(mend.contains("CapabilityBoundingSet"), "{mend}");
        let said = bench.say_with_only(given, &["shield", "attach", "eth0", "--no-guard"]);
        assert_eq!(said.code, 2, "{given}: {}{}", said.out, said.err);
        let why = format!("needs {missing}, which this process lacks");
        assert!(said.err.contains(&why), "{given}: {}", said.err);
        assert!(
            !said.err.contains("sudo") && !said.err.contains("memory"),
            "{}",
            said.err
        );
    }
    for given in ["+bpf,+net_admin,+perfmon", "+sys_admin"] {
        let said = bench.say_with_only(given, &["shield", "doctor", "eth0"]);
        assert_eq!(said.code, 0, "{given}: {}{}", said.out, said.err);
        let said = bench.say_with_only(given, &["shield", "attach", "eth0", "--no-guard"]);
        assert_eq!(said.code, 0, "{given}: {}{}", said.out, said.err);
        bench.ok(&["shield", "detach", "--all", "--purge"]);
    }
    let said = bench.say_as_nobody(&["shield", "doctor", "eth0"]);
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    assert_eq!(
        finding(&said.out, "rights"),
        (
            "prevents  rights     CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON missing".to_owned(),
            "run it with sudo, or give it CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON".to_owned()
        )
    );
}
