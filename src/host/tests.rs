use std::fs;

use clap::{CommandFactory, Parser};

use super::*;
use crate::cli::{Cli, Command};

const EXAMPLE: &str = include_str!("../../packaging/kernloom.toml");

/// The example with every setting in force.
fn uncommented() -> String {
    let setting = |line: &str| {
        line.strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
            .map(str::to_owned)
    };
    EXAMPLE
        .lines()
        .filter_map(setting)
        .collect::<Vec<_>>()
        .join("\n")
}

fn resolve(args: &[&str], file: &str) -> (Host, IqHost) {
    let file = HostFile::parse("kernloom.toml", file).unwrap();
    let line = ["kernloom", "iq"].iter().chain(args);
    let cli = Cli::try_parse_from(line).unwrap();
    let Command::Iq(iq) = &cli.command else {
        panic!("{args:?}");
    };
    let host = Host::of(&cli.host, file).unwrap();
    let settings = host.iq(&iq.run.host);
    (host, settings)
}

/// What is an example and no default.
fn without_examples((mut host, mut iq): (Host, IqHost)) -> (Host, IqHost) {
    host.groups.clear();
    host.file = HostFile::default();
    (iq.profile, iq.pdp_config) = (None, None);
    (iq.metrics_listen, iq.metrics_textfile) = (None, None);
    iq.whitelist_named = false;
    (host, iq)
}

#[test]
fn the_example_is_the_defaults() {
    assert_eq!(
        HostFile::parse("kernloom.toml", EXAMPLE).unwrap(),
        HostFile::default()
    );
    let written = resolve(&[], &uncommented());
    assert_eq!(written.0.groups["office"].len(), 2);
    assert_eq!(
        without_examples(written),
        without_examples(resolve(&[], ""))
    );
}

#[test]
fn the_example_has_every_key_and_every_key_has_its_flag() {
    let table: toml::Table = uncommented().parse().unwrap();
    let said = HostFile::parse("kernloom.toml", "colour = 1")
        .unwrap_err()
        .to_string();
    let keys = said.split("there are ").nth(1).unwrap();
    let mut keys: Vec<&str> = keys.split(", ").collect();
    keys.sort_unstable();
    assert_eq!(table.keys().collect::<Vec<_>>(), keys);
    let command = Cli::command();
    let iq = command.find_subcommand("iq").unwrap();
    let flags: Vec<&str> = command
        .get_arguments()
        .chain(iq.get_arguments())
        .filter_map(clap::Arg::get_long)
        .collect();
    for key in keys {
        assert!(flags.contains(&key), "{key} has no flag");
    }
}

#[test]
fn flags_go_before_the_file_and_the_file_before_defaults() {
    let file = "instance = 'edge'\ninterval = '2s'\ndry-run = false\nmanagement = ['192.0.2.1']\n\
                sizing = 'raspberry-pi'\nmax-deny = 70000\nprofile = 'idp'\nstate-dir = '/a'\n\
                iface = ['eth1', 'eth2']\n";
    let (host, iq) = resolve(&[], file);
    assert_eq!(host.places.bpffs, Path::new("/sys/fs/bpf/kernloom-edge"));
    assert_eq!(host.places.run_dir, Path::new("/run/kernloom-edge"));
    assert_eq!(iq.whitelist, Path::new("/a-edge/whitelist.txt"));
    assert_eq!((iq.interval, iq.dry_run), (Duration::from_secs(2), false));
    assert_eq!((iq.sources, iq.max_deny), (16_384, 70_000));
    assert_eq!(iq.iface, ["eth1", "eth2"]);
    let flags = [
        "--instance=lab",
        "--interval=3s",
        "--dry-run",
        "--management=192.0.2.9,2001:db8::/48",
        "--pdp-config=/ours.yaml",
        "--iface=eth9",
        "--group=dc=10.0.0.0/8",
    ];
    let (host, iq) = resolve(&flags, file);
    assert_eq!(host.places.bpffs, Path::new("/sys/fs/bpf/kernloom-lab"));
    assert_eq!((iq.interval, iq.dry_run), (Duration::from_secs(3), true));
    assert_eq!(host.management.len(), 2);
    assert_eq!(iq.iface, ["eth9"]);
    assert_eq!(host.groups["dc"][0].to_string(), "10.0.0.0/8");
    assert_eq!(
        (iq.profile, iq.pdp_config),
        (None, Some(PathBuf::from("/ours.yaml"))),
        "a file on the command line never lands on a profile it does not name"
    );
}

#[test]
fn w26_nothing_but_the_operators_word_switches_the_dry_run_off() {
    assert!(resolve(&[], "").1.dry_run);
    assert!(resolve(&["--dry-run=true"], "dry-run = false").1.dry_run);
    assert!(!resolve(&["--dry-run=false"], "dry-run = true").1.dry_run);
}

#[test]
fn what_is_wrong_in_the_file_is_shown_where_it_stands() {
    for (text, expected) in [
        (
            "intervall = '1s'",
            "k:1:1: unknown key 'intervall'; did you mean 'interval'?",
        ),
        (
            "\n interval = '1y'",
            "k:2:13: '1y' is not a duration; write it like 500ms, 30s, 10m, 1h30m or 14d",
        ),
        (
            "interval = '5ms'",
            "k:1:12: '5ms' is no useful tick; give 100ms to 60s",
        ),
        (
            "management = ['10.0.0.1/8']",
            "k:1:14: '10.0.0.1/8' has bits set after the prefix; did you mean 10.0.0.0/8?",
        ),
        (
            "dry-run = 'no'",
            "k:1:11: invalid type: string \"no\", expected a boolean",
        ),
        (
            "sizing = 'huge'",
            "k:1:10: unknown variant 'huge', expected 'standard' or 'raspberry-pi'",
        ),
        ("sources = 3", "k: sources: give 64 to 16777216"),
        (
            "metrics-listen = '127.0.0.1:99999'",
            "k:1:18: '127.0.0.1:99999' is no address to listen on; write it like 127.0.0.1:9798, [::1]:9798 or 9798",
        ),
        (
            "iface = ['eth0', 'eth 1']",
            "k:1:9: 'eth 1' can be no interface; 'ip link' names them",
        ),
    ] {
        let error = HostFile::parse("k", text).unwrap_err();
        assert_eq!(
            (error.exit_code(), error.to_string().as_str()),
            (2, expected),
            "{text}"
        );
    }
    let error = HostFile::read(Path::new("/nonexistent/k.toml")).unwrap_err();
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn an_instance_cannot_leave_its_directories() {
    for name in ["", "../x", "a/b", "a b"] {
        let args = HostArgs {
            instance: Some(name.to_owned()),
            ..HostArgs::default()
        };
        assert!(Host::of(&args, HostFile::default()).is_err(), "{name}");
    }
}

#[test]
fn w43_a_mistyped_word_is_an_error_and_starts_nothing() {
    for line in [
        vec!["kernloom", "iq", "sttaus"],
        vec!["kernloom", "iq", "--dryrun=false"],
        vec!["kernloom", "iq", "--dry-run=maybe"],
        vec!["kernloom", "iq", "profiles"],
        vec!["kernloom", "iq", "--profile=idp", "status"],
        vec!["kernloom", "reset", "--al"],
    ] {
        assert!(Cli::try_parse_from(&line).is_err(), "{line:?}");
    }
}

#[test]
fn a_whitelist_that_was_named_and_is_not_there_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("white.txt");
    let flag = format!("--whitelist={}", path.display());
    let setting = format!("whitelist = '{}'\n", path.display());
    let elsewhere = format!("state-dir = '{}'\n", dir.path().display());
    let missed = |args: &[&str], file: &str| {
        let (_, iq) = resolve(args, file);
        iq.missing_whitelist().map(Path::to_owned)
    };
    assert_eq!(missed(&[], &elsewhere), None);
    assert_eq!(missed(&[&flag], ""), Some(path.clone()));
    assert_eq!(missed(&[], &setting), Some(path.clone()));
    std::fs::write(&path, "").unwrap();
    assert_eq!(missed(&[&flag], ""), None);
}

/// A typo never fails open: what starts at boot goes by what the settings said before it.
#[test]
fn settings_that_cannot_be_read_are_gone_by_as_they_were() {
    let dir = crate::trust::private_tempdir();
    let (file, copy) = (dir.path().join("k.toml"), dir.path().join("kept/k.toml"));
    let args = HostArgs {
        config: Some(file.clone()),
        settings_copy: Some(copy.clone()),
        ..HostArgs::default()
    };
    let good = "management = ['192.0.2.1']\n";
    let managed = |host: &Host| host.management.len();
    // A first start has nothing to fall back on.
    fs::write(&file, "managment = []\n").unwrap();
    let error = Host::resolve(&args).unwrap_err().to_string();
    assert!(error.contains("managment") && !copy.exists(), "{error}");
    fs::write(&file, good).unwrap();
    let host = Host::resolve(&args).unwrap();
    assert_eq!((managed(&host), host.trouble), (1, None));
    assert_eq!(fs::read_to_string(&copy).unwrap(), good);
    for wrong in [
        "managment = []\n",
        "instance = 'a/b'\n",
        // What IQ alone would find wrong, once the copy is gone.
        "metrics-listen = '127.0.0.1:99999'\n",
        "profile = 'web-sever'\n",
        "iface = ['']\n",
    ] {
        fs::write(&file, wrong).unwrap();
        let host = Host::resolve(&args).unwrap();
        assert_eq!(managed(&host), 1, "{wrong}");
        let trouble = host.trouble.unwrap();
        let where_from = format!("; going by what was there before ({})", copy.display());
        assert!(trouble.ends_with(&where_from), "{trouble}");
        assert_eq!(fs::read_to_string(&copy).unwrap(), good);
        // Nobody else falls back.
        let alone = HostArgs {
            settings_copy: None,
            ..args.clone()
        };
        assert!(Host::resolve(&alone).is_err(), "{wrong}");
    }
    // A copy that cannot be kept is told, and stops nothing.
    fs::write(&file, "log-format = 'json'\n").unwrap();
    fs::remove_file(&copy).unwrap();
    fs::create_dir(&copy).unwrap();
    let host = Host::resolve(&args).unwrap();
    assert_eq!(host.log_format, LogFormat::Json);
    let trouble = host.trouble.unwrap();
    assert!(trouble.contains(&copy.display().to_string()), "{trouble}");
}

/// `--settings-copy /dev/null` was the end of /dev/null.
#[test]
fn a_copy_is_kept_in_files_alone_and_a_link_to_one_stays() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let dir = crate::trust::private_tempdir();
    let at = |name: &str| dir.path().join(name);
    let (file, kept) = (at("k.toml"), at("kept.toml"));
    let good = "management = ['192.0.2.1']\n";
    fs::write(&file, good).unwrap();
    let trouble = |copy: &Path| {
        let args = HostArgs {
            config: Some(file.clone()),
            settings_copy: Some(copy.to_owned()),
            ..HostArgs::default()
        };
        Host::resolve(&args).unwrap().trouble
    };
    let (pipe, socket) = (at("pipe"), at("socket"));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let to_pipe = at("to-pipe");
    symlink(&pipe, &to_pipe).unwrap();
    for copy in [&pipe, &socket, &to_pipe, &at("")] {
        let trouble = trouble(copy).unwrap();
        let told = format!(
            "--settings-copy {}: it is there and no regular file",
            copy.display()
        );
        assert!(trouble.starts_with(&told), "{trouble}");
    }
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
    assert!(to_pipe.is_symlink());
    fs::write(&kept, "").unwrap();
    let to_file = at("to-file");
    symlink(&kept, &to_file).unwrap();
    assert_eq!(trouble(&to_file), None);
    assert!(to_file.is_symlink());
    assert_eq!(fs::read_to_string(&kept).unwrap(), good);
}

/// The shipped unit gives --profile, and the file went by unseen.
#[test]
fn a_file_to_judge_by_that_the_command_line_sets_aside_is_known() {
    let file = "pdp-config = '/ours.yaml'\n";
    let unused = |args: &[&str]| resolve(args, file).1.unused_pdp_config;
    assert_eq!(unused(&[]), None);
    assert_eq!(unused(&["--profile=idp", "--pdp-config=/ours.yaml"]), None);
    assert_eq!(unused(&["--profile=idp"]), Some("/ours.yaml".into()));
    let unused = |args: &[&str]| resolve(args, "profile = 'idp'\n").1.unused_profile;
    assert_eq!(unused(&[]), None);
    assert_eq!(unused(&["--profile=nas"]), None, "says so itself");
    assert_eq!(unused(&["--pdp-config=/ours.yaml"]), Some("idp".into()));
    assert_eq!(unused(&["--pdp-config=/ours.yaml", "--profile=idp"]), None);
}

/// What starts at boot loads lists too, and a mistyped line kept them out.
#[test]
fn everything_that_starts_at_boot_goes_by_the_copy_of_the_settings() {
    let units = [
        include_str!("../../packaging/systemd/kernloom-shield.service"),
        include_str!("../../packaging/systemd/kernloom-list@.service"),
        include_str!("../../packaging/systemd/kernloom-iq@.service"),
        include_str!("../../packaging/openrc/kernloom-shield"),
        include_str!("../../packaging/openrc/kernloom-iq"),
    ];
    let starts = |line: &&str| {
        let runs = line.contains("/usr/bin/kernloom ") || line.starts_with("command_args=");
        runs && !line.contains(" shield status")
    };
    for unit in units {
        let lines: Vec<&str> = unit.lines().filter(starts).collect();
        assert!(!lines.is_empty(), "{unit}");
        for line in lines {
            let copy = "--settings-copy=/var/lib/kernloom/kernloom.toml.copy ";
            assert!(line.contains(copy), "{line}");
        }
    }
}
