//! What is shipped is what is documented.

use super::*;

struct Shipped {
    name: &'static str,
    triggers: [f64; 4],
    weights: [f64; 4],
    steps: [u32; 3],
    needs: [u32; 2],
    gate: Option<BlockGate>,
    ttl: PerStage<Duration>,
    hold: [u64; 2],
    noncompliance: Option<(u32, f64, f64, f64)>,
    limits: [&'static str; 2],
    floors: [f64; 4],
}

/// Names, triggers, weights, strikes, ticks up and down, gate, TTLs, holds, non-compliance, limits
/// and floors as documented. Order of signals: packets, SYN, ports, bytes.
#[rustfmt::skip]
fn shipped() -> Vec<Shipped> {
    let one = |name, triggers, weights, steps, needs, gate, ttl, hold, noncompliance, limits, floors| Shipped {
        name, triggers, weights, steps, needs, gate, ttl, hold, noncompliance, limits, floors,
    };
    vec![
        one("api-server", [2500., 500., 30., 0.], [0.55, 0.30, 0.15, 0.], [2, 4, 10], [2, 8], gate(2.8, 25), stages(60, 600, 900), [20, 45], Some((12, 15., 2.0, 0.3)), ["800pps/1600", "200pps/400"], [500., 100., 20., 0.]),
        one("api-server-bootstrap", [10_000., 2000., 200., 0.], [0.55, 0.30, 0.15, 0.], [3, 7, 999], [2, 8], None, stages(60, 600, 900), [20, 45], None, ["3000pps/6000", "800pps/1600"], [1000., 200., 30., 0.]),
        one("database", [300., 50., 8., 0.], [0.25, 0.25, 0.50, 0.], [2, 4, 10], [2, 8], gate(2.5, 20), stages(120, 900, 1800), [30, 180], Some((8, 1., 1.5, 0.3)), ["100pps/200", "20pps/40"], [50., 20., 5., 0.]),
        one("database-bootstrap", [2000., 300., 50., 0.], [0.25, 0.25, 0.50, 0.], [3, 7, 999], [2, 8], None, stages(120, 900, 1800), [30, 180], None, ["500pps/1000", "150pps/300"], [100., 40., 10., 0.]),
        one("idp", [350., 180., 10., 0.], [0.30, 0.55, 0.15, 0.], [1, 3, 8], [2, 8], gate(2.5, 30), stages(120, 900, 1800), [30, 60], Some((10, 1., 1.8, 0.3)), ["80pps/200", "15pps/30"], [100., 50., 8., 0.]),
        one("idp-bootstrap", [2000., 1000., 80., 0.], [0.30, 0.55, 0.15, 0.], [2, 5, 999], [2, 8], None, stages(120, 900, 1800), [30, 60], None, ["300pps/750", "80pps/160"], [200., 100., 15., 0.]),
        one("internal-app", [800., 150., 8., 0.], [0.25, 0.20, 0.55, 0.], [3, 6, 999], [2, 10], None, stages(180, 900, 600), [45, 120], None, ["500pps/1000", "100pps/200"], [200., 50., 5., 0.]),
        one("internal-app-bootstrap", [3200., 600., 32., 0.], [0.25, 0.20, 0.55, 0.], [4, 8, 999], [2, 10], None, stages(180, 900, 600), [45, 120], None, ["2000pps/4000", "400pps/800"], [200., 50., 5., 0.]),
        one("nas", [1500., 30., 8., 80e6], [0.25, 0.30, 0.25, 0.20], [2, 5, 14], [2, 8], gate(2.5, 30), stages(120, 900, 86_400), [60, 300], Some((10, 2., 1.8, 0.3)), ["600pps/1500", "150pps/300"], [200., 30., 8., 10e6]),
        one("nas-bootstrap", [4000., 100., 30., 200e6], [0.25, 0.30, 0.25, 0.20], [3, 7, 999], [3, 10], None, stages(180, 1200, 86_400), [120, 600], None, ["1500pps/3750", "500pps/1000"], [500., 50., 15., 5e6]),
        one("reverse-proxy", [3000., 600., 25., 0.], [0.50, 0.35, 0.15, 0.], [2, 6, 12], [2, 8], gate(2.8, 30), stages(60, 600, 600), [30, 180], Some((12, 5., 2.0, 0.2)), ["1000pps/2000", "250pps/500"], [800., 150., 15., 0.]),
        one("reverse-proxy-bootstrap", [15_000., 3000., 200., 0.], [0.50, 0.35, 0.15, 0.], [3, 7, 999], [2, 8], None, stages(60, 600, 600), [30, 180], None, ["4000pps/8000", "1000pps/2000"], [1500., 300., 20., 0.]),
        one("ssh-bastion", [60., 25., 5., 0.], [0.30, 0.55, 0.15, 0.], [1, 2, 6], [2, 10], gate(2.0, 30), stages(300, 1800, 3600), [60, 300], Some((6, 0.5, 1.5, 0.3)), ["20pps/40", "5pps/10"], [60., 25., 5., 0.]),
        one("ssh-bastion-bootstrap", [240., 100., 20., 0.], [0.30, 0.55, 0.15, 0.], [2, 5, 999], [2, 10], None, stages(300, 1800, 3600), [60, 300], None, ["80pps/160", "20pps/40"], [60., 25., 5., 0.]),
        one("web-server", [1200., 250., 20., 0.], [0.55, 0.30, 0.15, 0.], [2, 5, 12], [2, 8], gate(2.8, 30), stages(60, 600, 600), [20, 45], Some((15, 10., 2.0, 0.3)), ["400pps/1000", "100pps/200"], [300., 60., 10., 0.]),
        one("web-server-bootstrap", [8000., 2000., 200., 0.], [0.55, 0.30, 0.15, 0.], [3, 7, 999], [2, 8], None, stages(60, 600, 600), [20, 45], None, ["2000pps/5000", "500pps/1000"], [600., 120., 15., 0.]),
        one("ziti-controller", [80., 20., 5., 0.], [0.35, 0.40, 0.25, 0.], [1, 3, 9], [2, 6], gate(2.0, 15), stages(60, 600, 1800), [15, 30], Some((8, 1., 1.5, 0.3)), ["20pps/40", "5pps/10"], [80., 20., 5., 0.]),
        one("ziti-controller-bootstrap", [400., 120., 30., 0.], [0.35, 0.45, 0.20, 0.], [2, 6, 999], [3, 8], None, stages(90, 600, 1800), [30, 60], Some((12, 2., 1.5, 0.3)), ["80pps/160", "30pps/60"], [100., 30., 10., 0.]),
        one("ziti-router", [8000., 200., 30., 0.], [0.60, 0.25, 0.15, 0.], [2, 5, 12], [2, 8], gate(3.0, 60), stages(30, 120, 600), [20, 45], Some((20, 20., 2.5, 0.3)), ["3000pps/6000", "800pps/1600"], [2000., 100., 20., 0.]),
        one("ziti-router-bootstrap", [25_000., 600., 120., 0.], [0.60, 0.25, 0.15, 0.], [3, 8, 999], [3, 10], None, stages(45, 180, 600), [30, 60], Some((40, 50., 2.5, 0.3)), ["10000pps/20000", "3000pps/6000"], [5000., 200., 40., 0.]),
    ]
}

#[test]
fn every_shipped_profile_resolves_to_its_documented_values() {
    assert!(Profile::names().eq(shipped().iter().map(|one| one.name)));
    for one in shipped() {
        let profile = Profile::named(one.name).unwrap();
        assert_eq!(profile.name(), one.name);
        assert!(!profile.description().is_empty());
        let effective = profile.effective(&Overrides::default()).unwrap();
        let config = effective.config().unwrap();
        let (triggers, weights) = (config.triggers, config.weights);
        let signals = [triggers.pps, triggers.syn, triggers.ports, triggers.bps];
        assert_eq!(signals, one.triggers, "{}", one.name);
        let shares = [weights.pps, weights.syn, weights.ports, weights.bps];
        assert_eq!(shares, one.weights, "{}", one.name);
        assert_eq!(
            (config.cap, config.dominance, config.flash),
            (3.0, 2.0, 10.0)
        );
        let at = |steps: Option<u32>| steps.unwrap_or(999);
        let steps = [config.soft_at, at(config.hard_at), at(config.block_at)];
        assert_eq!(steps, one.steps, "{}", one.name);
        assert_eq!(
            [config.up_need, config.down_need],
            one.needs,
            "{}",
            one.name
        );
        assert_eq!(config.gate, one.gate, "{}", one.name);
        assert_eq!(config.ttl, one.ttl, "{}", one.name);
        let [soft, hard] = one.hold;
        assert_eq!(config.hold, stages(soft, hard, hard), "{}", one.name);
        let noncompliance = one
            .noncompliance
            .map(|(at, drops, severity, reset)| NonCompliance {
                at,
                drops,
                severity,
                reset,
            });
        assert_eq!(config.noncompliance, noncompliance, "{}", one.name);
        let limits = [config.soft_limit(), config.hard_limit()].map(|limit| limit.to_string());
        assert_eq!(limits, one.limits, "{}", one.name);
        let floors = &effective.spec().autotune.floors;
        let floors = [floors.pps, floors.syn, floors.scan, floors.bps].map(Amount::get);
        assert_eq!(floors, one.floors, "{}", one.name);
        let allow_block = effective.spec().autotune.bootstrap.allow_block;
        assert_eq!(
            allow_block,
            !one.name.ends_with("-bootstrap"),
            "{}",
            one.name
        );
    }
}

#[test]
fn w23_no_floor_raises_a_shipped_trigger() {
    for one in shipped() {
        for (floor, trigger) in one.floors.iter().zip(one.triggers) {
            assert!(*floor <= trigger, "{}: {floor} above {trigger}", one.name);
        }
    }
}

#[test]
fn every_shipped_profile_says_whom_it_is_for() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# For "), "{}", path.display());
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            Profile::names().any(|own| own == name),
            "{name} is not embedded"
        );
        assert_eq!(Profile::text(name).unwrap(), text);
    }
}
