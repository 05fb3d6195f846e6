//! The graph's page as a browser shows it: headless Chromium, no network.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kernloom::graph::{
    Coverage, Direction, Edge, Evidence, Mode, Peer, Readiness, Record, Service, State,
};
use kernloom::model::{Source, Wall};
use kernloom::report::GraphView;

const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// The browser's name; `None` after saying SKIPPED, where nothing demands the test.
fn browser() -> Option<&'static str> {
    let works = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
    let found = BROWSERS.iter().find(works).copied();
    if found.is_none() {
        assert!(
            std::env::var_os("KERNLOOM_REQUIRE_ROOT").is_none(),
            "no Chromium: scripts/deps.sh lab installs it"
        );
        let _unseen = writeln!(std::io::stderr(), "SKIPPED page: there is no Chromium");
    }
    found
}

/// So many edges of every state and direction, over a third as many peers.
fn view(edges: u32) -> GraphView {
    let now = Wall::from_secs(1_800_000_000);
    let mut records = BTreeMap::new();
    for number in 0..edges {
        let address = (0x0a00_0000 + number / 3).to_be_bytes();
        let direction = if number % 7 == 0 {
            Direction::Out
        } else {
            Direction::In
        };
        let edge = Edge {
            direction,
            peer: Peer::Source(Source::host(address.into())),
            service: Service::tcp(u16::try_from(number % 60_000).unwrap() + 1),
        };
        let states = State::ALL;
        let mut record = Record::new(states[number as usize % states.len()], now, None);
        let evidence = Evidence {
            packets: u64::from(number),
            ..Evidence::default()
        };
        record.add(now, Duration::from_secs(1), None, &evidence);
        records.insert(edge, record);
    }
    let group = Edge {
        direction: Direction::In,
        peer: Peer::Group("office</script><b>".to_owned()),
        service: Service::tcp(443),
    };
    records.insert(group, Record::new(State::Frozen, now, None));
    let readiness = Readiness::of(&records, &Coverage::default(), 0);
    GraphView::of(
        "1f2e3d4c5b6a",
        Mode::Enforce,
        None,
        now,
        &readiness,
        &records,
        &BTreeMap::new(),
    )
}

fn chromium(browser: &str, dir: &Path, what: &[&str], page: &str) -> String {
    let profile = format!("--user-data-dir={}", dir.join("profile").display());
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
        ])
        .args([
            "--force-prefers-color-scheme=light",
            "--virtual-time-budget=10000",
            &profile,
        ])
        .args(what)
        .arg(page)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_page_shows_the_graph_as_a_picture_and_finds_an_edge_among_thousands() {
    let Some(browser) = browser() else { return };
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("graph.html");
    let html = view(5_000).to_html().unwrap();
    assert!(
        !html.contains("http://")
            || html.matches("http://").count()
                == html.matches("http://www.w3.org/2000/svg").count()
    );
    std::fs::write(&page, html).unwrap();
    let url = format!("file://{}", page.display());

    let dom = chromium(browser, dir.path(), &["--dump-dom"], &url);
    // 714 of the 5 000 are expired, and those are not shown unless asked for.
    assert!(
        dom.contains("4287 of 5001 edges"),
        "{}",
        &dom[dom.len() - 2_000..]
    );
    let drawn = dom.matches("class=\"edge\"").count();
    assert!(drawn >= 240, "{drawn} lines drawn");
    assert!(
        dom.contains(">office&lt;/script&gt;&lt;b&gt;</text>"),
        "a group is drawn, and is only text"
    );

    let found = chromium(
        browser,
        dir.path(),
        &["--dump-dom"],
        &format!("{url}#search=10.0.6.130%20tcp/5000"),
    );
    assert!(
        found.contains("1 of 5001 edges"),
        "{}",
        &found[found.len() - 2_000..]
    );
    assert_eq!(found.matches("class=\"edge\"").count(), 1);

    let shot = dir.path().join("page.png");
    let screenshot = format!("--screenshot={}", shot.display());
    chromium(
        browser,
        dir.path(),
        &["--window-size=1400,900", &screenshot],
        &url,
    );
    let colours = colours(&shot);
    // Lines are drawn at three quarters over white: learned blue, frozen green, denied red.
    for (name, colour) in [
        ("learned", [0x2f, 0x6f, 0xde]),
        ("frozen", [0x15, 0x80, 0x3d]),
        ("denied", [0xc5, 0x30, 0x30]),
    ] {
        assert!(
            colours.get(&colour).is_some_and(|pixels| *pixels > 20),
            "no {name} in the picture"
        );
    }
    assert!(
        colours
            .get(&[0x1d, 0x27, 0x33])
            .is_some_and(|pixels| *pixels > 1_000),
        "no host in the middle"
    );
}

/// How often each colour occurs in a picture.
fn colours(path: &Path) -> BTreeMap<[u8; 3], u32> {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let step = info.color_type.samples();
    let mut colours = BTreeMap::new();
    for pixel in pixels[..info.buffer_size()].chunks_exact(step) {
        *colours.entry([pixel[0], pixel[1], pixel[2]]).or_default() += 1;
    }
    colours
}

#[test]
fn the_other_formats_name_every_edge_once() {
    let view = view(50);
    let (dot, mermaid, json) = (view.to_dot(), view.to_mermaid(), view.to_json());
    assert_eq!(dot.matches(" -> ").count(), 51);
    assert!(
        dot.contains(
            "  host -> \"10.0.0.0\" [label=\"tcp/1\", class=\"candidate\", style=dashed];\n"
        ),
        "{dot}"
    );
    for (state, line) in [
        ("denied", "class=\"denied\", color=red];"),
        ("frozen", "class=\"frozen\"];"),
    ] {
        assert_eq!(
            dot.contains(line),
            json.replace(' ', "")
                .contains(&format!("\"state\":\"{state}\"")),
            "{line}: {dot}"
        );
    }
    assert_eq!(dot.contains("color=red"), mermaid.contains(" --x|"));
    assert_eq!(mermaid.matches('|').count(), 102);
    let read: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(read["edges"].as_array().unwrap().len(), 51);
    assert_eq!(read["mode"], "frozen-enforce");
}
