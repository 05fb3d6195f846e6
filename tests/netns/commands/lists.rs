//! What may come into the lists, and what of it is refused.

use super::{Bench, json, said};

/// The file rule held for imports alone: by hand, a feed took an operator's allow away.
#[test]
fn a_feeds_entry_by_hand_overrules_neither_an_allow_nor_the_operators() {
    let Some(bench) = Bench::new("overrule") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    bench.ok(&["shield", "allow", "add", "192.0.2.7"]);
    bench.ok(&["shield", "deny", "add", "192.0.2.8"]);
    bench.ok(&["shield", "allow", "add", "192.0.2.9", "--owner", "feed"]);
    let before = bench.ok(&["shield", "allow", "list"]) + &bench.ok(&["shield", "deny", "list"]);
    for (list, source, owner, there) in [
        ("deny", "192.0.2.7", "feed", "allow, by operator"),
        ("deny", "192.0.2.7", "iq", "allow, by operator"),
        ("allow", "192.0.2.8", "feed", "deny, by operator"),
        ("deny", "192.0.2.9", "iq", "allow, by feed"),
    ] {
        let args = ["shield", list, "add", "192.0.2.1", source, "--owner", owner];
        assert_eq!(
            bench.refused(&args, 2),
            format!(
                "kernloom: an entry of owner {owner} never overrules what is there: {source} {there}, ends never. \
                 Nothing was changed; without --owner it is yours and does\n"
            )
        );
    }
    let after = bench.ok(&["shield", "allow", "list"]) + &bench.ok(&["shield", "deny", "list"]);
    assert_eq!(before, after);
    // The same by a list, which goes on with the rest; and its own it renews.
    let feed = ["shield", "deny", "import", "-", "--owner", "feed"];
    let said = bench.feed(&feed, "192.0.2.7\n192.0.2.9\n192.0.2.1\n");
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        said.out.starts_with("1 added, 0 changed, 2 kept"),
        "{}",
        said.out
    );
    bench.ok(&[
        "shield",
        "allow",
        "add",
        "192.0.2.9",
        "--owner",
        "feed",
        "--ttl",
        "1h",
    ]);
    bench.ok(&[
        "shield",
        "deny",
        "add",
        "192.0.2.1",
        "--owner",
        "feed",
        "--ttl",
        "1h",
    ]);
    // What has ended binds nobody.
    bench.ok(&["shield", "allow", "add", "192.0.2.7", "--ttl", "1ms"]);
    bench.ok(&["shield", "deny", "add", "192.0.2.7", "--owner", "feed"]);
}

/// Trailing blanks were kept by the table and lost by the list: a second entry's reason differed.
#[test]
fn a_reason_goes_out_and_in_as_it_was_entered() {
    let Some(bench) = Bench::new("blanks") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    let add = ["shield", "deny", "add", "192.0.2.7", "--reason"];
    bench.ok(&[&add[..], &[" lead, inner  blanks and trail \u{a0}"]].concat());
    let list = || bench.ok(&["shield", "deny", "list", "--json"]);
    let before = list();
    assert_eq!(
        json(&before)["entries"][0]["reason"],
        "lead, inner  blanks and trail"
    );
    let exported = bench.ok(&["shield", "deny", "export"]);
    bench.ok(&["shield", "deny", "del", "192.0.2.7"]);
    let said = bench.feed(&["shield", "deny", "import", "-"], &exported);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(list(), before);
}

/// Escape sequences of a list went to root's terminal, and a file without lines took all memory.
#[test]
fn a_hostile_list_is_refused_in_few_harmless_words() {
    let Some(bench) = Bench::new("hostile") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    let import = ["shield", "deny", "import"];
    let said = bench.feed(
        &[&import[..], &["-"]].concat(),
        "\u{1b}[31mred\n192.0.2.7\0\n",
    );
    let mend =
        "is not an address or prefix; write it like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/48";
    assert_eq!(
        (said.code, said.err),
        (
            2,
            format!(
                "kernloom: -: 2 bad lines, nothing was changed\n  line 1: '\\u{{1b}}[31mred' {mend}\n  \
                 line 2: '192.0.2.7\\u{{0}}' {mend}\n"
            )
        )
    );
    let device = "it is a device; give a file, or - for standard input";
    assert_eq!(
        bench.refused(&[&import[..], &["/dev/zero"]].concat(), 2),
        format!("kernloom: reading /dev/zero: {device}\n")
    );
    // Without end, but by standard input.
    let mut command = bench.command(&[&import[..], &["-"]].concat());
    let said = super::said(
        command
            .stdin(std::fs::File::open("/dev/zero").unwrap())
            .output()
            .unwrap(),
    );
    assert_eq!(
        (said.code, &said.err[..]),
        (
            2,
            "kernloom: -: 1 bad line, nothing was changed\n  line 1: it is longer than 4096 bytes; no more was read\n"
        )
    );
    // What standard input is may be named, too; here it is empty.
    let said = bench.ok(&[&import[..], &["/dev/null"]].concat());
    assert!(said.starts_with("0 added"), "{said}");
    let marked = bench.file("bom.txt", "\u{feff}192.0.2.7\n");
    assert!(
        bench
            .ok(&[&import[..], &[&marked]].concat())
            .starts_with("1 added")
    );
}

/// A variable that names nobody was passed over in silence, and with it the guard.
#[test]
fn an_ssh_session_that_cannot_be_told_is_warned_about() {
    let Some(bench) = Bench::new("ssh") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    let deny = |session: &str, insist: &[&str]| {
        let args = ["shield", "deny", "add", "192.0.2.0/24"];
        let mut command = bench.command(&[&args[..], insist].concat());
        let said = said(command.env("SSH_CONNECTION", session).output().unwrap());
        assert_eq!(said.code, 0, "{}", said.err);
        said.err
    };
    for session in ["garbage", "999.1.1.1 51000 10.77.0.2 22"] {
        let word = format!(
            "] SSH_CONNECTION '{session}' names no address, so nothing guards your SSH session; \
             'kernloom shield management add ADDRESS' does\n"
        );
        let warned = deny(session, &[]);
        assert!(
            warned.ends_with(&word) && warned.contains("WARN"),
            "{warned}"
        );
        assert_eq!(deny(session, &["--no-guard"]), "");
    }
    for fine in ["", "198.51.100.7 51000 10.77.0.2 22"] {
        assert_eq!(deny(fine, &[]), "");
    }
}

/// The host was managed from a network, one address of which stayed denied without a word.
#[test]
fn an_allow_says_which_narrower_rules_stay() {
    let Some(bench) = Bench::new("narrower") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    bench.ok(&["shield", "deny", "add", "10.50.0.9", "10.51.0.9"]);
    bench.ok(&["shield", "deny", "add", "10.50.0.8", "--owner", "feed"]);
    bench.ok(&["shield", "allow", "add", "10.50.0.7"]);
    bench.ok(&["shield", "limit", "set", "10.50.0.128/25", "--rate", "5pps"]);
    for list in ["management", "allow"] {
        let owner = if list == "allow" { "operator" } else { list };
        assert_eq!(
            bench
                .ok(&["shield", list, "add", "10.50.0.0/24"])
                .split_once('\n'),
            Some((
                &format!("10.50.0.0/24 allow, by {owner}, ends never")[..],
                "narrower, and stays: 10.50.0.9 deny, by operator, ends never; 'kernloom shield deny del 10.50.0.9' \
                 lifts it\n\
                 narrower, and stays: 10.50.0.128/25 limit-all:5pps/5, by operator, ends never; \
                 'kernloom shield limit del 10.50.0.128/25' lifts it\n"
            ))
        );
        bench.ok(&["shield", list, "del", "10.50.0.0/24"]);
    }
    let said = bench.ok(&["shield", "allow", "add", "10.50.0.0/24", "--owner", "feed"]);
    assert_eq!(said.lines().count(), 1, "{said}");
}
