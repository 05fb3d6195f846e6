//! Where an instance may be kept, and which interface is meant.

use std::path::Path;
use std::process::Command;

use super::{BINARY, Bench, Said, said};

fn say_in(bench: &Bench, place: &Path, args: &[&str]) -> Said {
    let mut command = bench.lab.server().net.command(BINARY);
    command
        .env_remove("SSH_CONNECTION")
        .arg("--bpffs")
        .arg(place);
    said(command.args(args).output().unwrap())
}

/// The kernel's refusal of the name read as missing rights, to root.
#[test]
fn a_dot_in_the_name_of_an_instance_is_told_as_one() {
    let Some(bench) = Bench::new("dotted") else {
        return;
    };
    let root = bench.lab.bpffs().parent().unwrap();
    for (place, name) in [("t.3", "t.3"), ("deep/.er/x", ".er")] {
        let place = root.join(place);
        let said = say_in(&bench, &place, &["shield", "attach", "eth0", "--no-guard"]);
        assert_eq!(
            (said.code, said.err),
            (
                2,
                format!(
                    "kernloom: making {}: the BPF file system takes no dot in a name; give --bpffs another than \
                     '{name}'\n",
                    place.display()
                )
            )
        );
        assert!(!place.exists() && !root.join("deep").exists());
    }
}

/// It went on to remove the mount point, as if it were an instance.
#[test]
fn a_whole_file_system_and_what_is_none_are_never_detached() {
    let Some(bench) = Bench::new("whole") else {
        return;
    };
    let root = bench.lab.bpffs().parent().unwrap();
    let said = say_in(&bench, root, &["shield", "detach", "--all", "--purge"]);
    assert_eq!(
        (said.code, said.err),
        (
            2,
            format!(
                "kernloom: {} is a BPF file system itself; give --bpffs a directory below it\n",
                root.display()
            )
        )
    );
    let other = bench.lab.dir().join("empty");
    std::fs::create_dir(&other).unwrap();
    let said = say_in(&bench, &other, &["shield", "detach", "--all", "--purge"]);
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(
        said.err.contains("is not in a BPF file system"),
        "{}",
        said.err
    );
    assert!(other.exists());
}

#[test]
fn without_a_default_route_it_says_how_this_command_is_told_the_interface() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    for (args, mend) in [
        (
            &["shield", "attach"][..],
            "name one, as in 'kernloom shield attach eth0'",
        ),
        (
            &["shield", "doctor"],
            "name one, as in 'kernloom shield doctor eth0'",
        ),
    ] {
        let mut command = Command::new("unshare");
        let said = said(command.args(["--net", BINARY]).args(args).output().unwrap());
        let told =
            format!("kernloom: there is no default route to take the interface from; {mend}\n");
        assert_eq!((said.code, said.err), (1, told));
    }
}
