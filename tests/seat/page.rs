//! The report as a browser shows it: headless Chromium, no network.

use std::path::Path;
use std::process::Command;

use kernloom::model::Wall;
use kernloom::page::{Graph, GraphEdge, Report, Traffic};
use kernloom::state::Record;

const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];
const START: u64 = 1_800_000_000;

fn browser() -> Option<&'static str> {
    let works = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
    let found = BROWSERS.iter().find(works).copied();
    if found.is_none() {
        assert!(
            std::env::var_os("KERNLOOM_REQUIRE_ROOT").is_none(),
            "no Chromium: scripts/deps.sh lab installs it"
        );
        eprintln!("SKIPPED page: there is no Chromium");
    }
    found
}

fn record(at: u64, source: &str, from: &str, to: &str) -> Record {
    Record {
        time: Wall::from_secs(START + at).to_string(),
        source: source.to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
        kind: "escalate".to_owned(),
        severity: 3.0,
        signal: "syn".to_owned(),
        rate: 5_012.0,
        trigger: 250.0,
        strikes: 3,
        hold: "limit-new:400pps/800".to_owned(),
        until: String::new(),
        dry_run: false,
    }
}

fn report(traffic: Vec<Traffic>) -> Report {
    Report {
        host: "edge<1>".to_owned(),
        from: Wall::from_secs(START),
        to: Wall::from_secs(START + 3_600),
        records: vec![
            record(600, "192.0.2.7", "OBSERVE", "RATE_SOFT"),
            record(660, "192.0.2.7", "RATE_SOFT", "RATE_HARD"),
            record(1_800, "2001:db8::/64", "RATE_HARD", "BLOCK"),
            record(3_000, "<script>alert(1)</script>", "BLOCK", "OBSERVE"),
        ],
        traffic,
        graph: Some(graph()),
    }
}

/// Peers on both sides, more than fit on the left, in every state; one has a hostile name.
fn graph() -> Graph {
    let edge = |out, peer: &str, state: &str| GraphEdge {
        out,
        peer: peer.to_owned(),
        service: "tcp/443".to_owned(),
        state: state.to_owned(),
    };
    let mut edges: Vec<GraphEdge> = (0..30)
        .map(|n| edge(false, &format!("192.0.2.{n}"), "frozen"))
        .collect();
    edges.push(edge(
        false,
        "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff",
        "violation",
    ));
    edges.push(edge(true, "</svg><script>alert(2)</script>", "denied"));
    edges.push(edge(true, "internet", "candidate"));
    Graph {
        mode: "frozen-observe".to_owned(),
        edges,
    }
}

/// What the browser makes of the page, with the place of every mark added by a script of ours.
fn looked_at(browser: &str, page: &str) -> (String, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    // The page forbids scripts; the copy that is measured does not.
    let (head, rest) = page.split_once("<meta http-equiv").unwrap();
    let rest = rest.split_once('>').unwrap().1;
    let measure = "<script>onload=()=>{let out=[];for(const e of document.querySelectorAll('svg circle')){\
        const b=e.getBoundingClientRect(),s=e.closest('svg').getBoundingClientRect();\
        out.push([e.closest('svg').id,e.className.baseVal,getComputedStyle(e).fill,\
        b.left>=s.left&&b.right<=s.right&&b.top>=s.top&&b.bottom<=s.bottom&&b.width>2].join(' '))}\
        const g=document.querySelector('svg#graph'),r=g&&g.getBoundingClientRect();\
        const ins=g?[...g.querySelectorAll('text')].every(t=>{const b=t.getBoundingClientRect();\
        return b.left>=r.left&&b.right<=r.right&&b.top>=r.top&&b.bottom<=r.bottom}):false;\
        const red=g?getComputedStyle(g.querySelector('path.violation')).stroke:'';\
        out.push(['graph',g?g.querySelectorAll('path.edge').length:0,red,ins].join(' '));\
        const p=document.createElement('pre');p.id='measured';\
        p.textContent=out.join(';')+'|'+(document.documentElement.scrollWidth<=innerWidth);\
        document.body.append(p)}</script>";
    let path = dir.path().join("measured.html");
    std::fs::write(
        &path,
        format!("{head}{rest}").replace("</body>", &format!("{measure}</body>")),
    )
    .unwrap();
    let plain = dir.path().join("report.html");
    std::fs::write(&plain, page).unwrap();
    let shot = dir.path().join("shot.png");
    let run = |what: &str, page: &Path| {
        let output = Command::new(browser)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .args([
                "--force-prefers-color-scheme=light",
                "--window-size=1100,1400",
            ])
            .arg(format!(
                "--user-data-dir={}",
                dir.path().join("profile").display()
            ))
            .args([what, &format!("file://{}", page.display())])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let dom = run("--dump-dom", &path);
    run(&format!("--screenshot={}", shot.display()), &plain);
    (dom, std::fs::read(shot).unwrap())
}

#[test]
fn the_page_shows_every_decision_inside_its_picture_in_the_colour_of_its_stage() {
    let Some(browser) = browser() else { return };
    let (dom, shot) = looked_at(browser, &report(Vec::new()).html());
    let measured = dom.split("id=\"measured\">").nth(1).unwrap();
    let (marks, fits) = measured.split('<').next().unwrap().split_once('|').unwrap();
    let marks: Vec<&str> = marks.split(';').collect();
    assert_eq!(fits, "true", "the page is wider than the window");
    let stages: Vec<&str> = marks
        .iter()
        .copied()
        .filter(|mark| mark.starts_with("stages "))
        .collect();
    assert_eq!(
        stages,
        [
            "stages RATE_SOFT rgb(184, 134, 0) true",
            "stages RATE_HARD rgb(217, 102, 11) true",
            "stages BLOCK rgb(198, 40, 40) true",
            "stages OBSERVE rgb(76, 120, 168) true",
        ]
    );
    assert_eq!(
        marks
            .iter()
            .filter(|mark| mark.starts_with("threshold-syn "))
            .count(),
        4
    );
    // 24 of 31 on the left, and both on the right.
    assert!(
        marks.contains(&"graph 26 rgb(198, 40, 40) true"),
        "{marks:?}"
    );
    assert!(
        marks.iter().all(|mark| mark.ends_with(" true")),
        "{marks:?}"
    );
    assert!(
        shot.starts_with(b"\x89PNG") && shot.len() > 20_000,
        "{}",
        shot.len()
    );
}

#[test]
fn a_recording_is_drawn_as_traffic_against_its_threshold() {
    let point = |minute: u64| Traffic {
        time: Wall::from_secs(START + 60 * minute),
        peaks: [10.0, 600.0, 5.0 * (minute + 1) as f64, 0.0],
        triggers: [1_200.0, 0.0, 250.0, 20.0],
    };
    let html = report((0..60).map(point).collect()).html();
    for (id, there) in [
        ("pps", true),
        ("bps", false),
        ("syn", true),
        ("ports", true),
    ] {
        assert_eq!(
            html.contains(&format!("id=\"threshold-{id}\"")),
            there,
            "{id}"
        );
    }
    let traffic = html.split("class=\"traffic\" points=\"").nth(1).unwrap();
    assert_eq!(traffic.split('"').next().unwrap().split(' ').count(), 60);
}

#[test]
fn the_page_needs_nothing_but_itself_and_trusts_no_text() {
    let html = report(Vec::new()).html();
    for outside in ["http://", "https://", "src=", "url(", "@import", "<script"] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("&lt;script&gt;alert(1)"));
    assert!(html.contains("&lt;script&gt;alert(2)"));
    assert!(html.contains("<p>7 more are in 'kernloom graph export --format html'</p>"));
    assert!(html.contains("Kernloom on edge&lt;1&gt;"));
    let quiet = Report {
        records: Vec::new(),
        ..report(Vec::new())
    };
    assert!(quiet.html().contains("No source left OBSERVE"));
}
