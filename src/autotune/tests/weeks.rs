use super::*;

/// `name`: learned against true, in a line that the test prints.
fn error(name: &str, learned: f64, values: &mut [f64]) -> f64 {
    let truth = quantile(values, 0.995);
    let error = learned / truth - 1.0;
    println!(
        "{name:>6}: learned {learned:8.1}  true q99.5 {truth:8.1}  error {:+.1} %",
        error * 100.0
    );
    error
}

#[test]
fn fourteen_days_of_cycles_lead_within_a_fifth_of_the_true_percentile() {
    let mut host = Host::new(config(), plan(), 300);
    let revisions = host.days(14);
    let learned = host.tuner.triggers();
    let pps = error("pps", learned.pps, &mut host.pps);
    let syn = error("syn", learned.syn, &mut host.syn);
    assert!(pps.abs() <= 0.2, "{pps}");
    assert!(syn.abs() <= 0.2, "{syn}");
    for revision in &revisions {
        assert!(revision.triggers.pps > plan().floors.pps, "{revision:?}");
        assert!(revision.triggers.syn > plan().floors.syn, "{revision:?}");
    }
    let count = |phase| revisions.iter().filter(|r| r.phase == phase).count();
    assert_eq!(count(Phase::Bootstrap1), 47, "hourly until 48 h");
    assert_eq!(
        count(Phase::Bootstrap2),
        12,
        "every 6 h until 5 d, the first at 48 h"
    );
    assert!(
        (8..=9).contains(&count(Phase::Bootstrap3)),
        "daily until 14 d"
    );
    assert_eq!(host.tuner.phase(), Phase::Steady);
    assert_eq!(host.days(7).len(), 2, "then every 84 h");
}

#[test]
fn w23_zero_inflated_traffic_does_not_collapse_to_the_floor() {
    let mut host = Host::new(config(), plan(), 120);
    host.days(14);
    let learned = host.tuner.triggers();
    let truth = quantile(&mut host.syn, 0.995);
    // Of all ticks of all clients, far less than one in 200 opens a connection.
    let ticks = 14.0 * DAY as f64 / WINDOW.as_secs_f64() * 120.0;
    assert!((host.syn.len() as f64) < 0.05 * ticks);
    assert!(
        (learned.syn / truth - 1.0).abs() < 0.2,
        "{} {truth}",
        learned.syn
    );
    assert!(learned.syn > 2.0 * plan().floors.syn);
}

/// The largest change of a day, up and down, as shares of the day before; and in the long run.
fn largest_drift(share: f64) -> (f64, f64) {
    let mut host = Host::new(config(), plan(), 200);
    host.attackers = (200.0 * share / (1.0 - share)).round() as u32;
    host.attack = 60.0;
    let (mut up, mut down) = (0.0_f64, 0.0_f64);
    for day in 0..21 {
        let before = host.tuner.triggers();
        host.days(1);
        let after = host.tuner.triggers();
        let phase = plan().phase(Duration::from_secs(day * DAY));
        let step = *plan().step(phase);
        for (before, after) in [(before.pps, after.pps), (before.syn, after.syn)] {
            let change = after / before - 1.0;
            assert!(change <= step.day_up + 1e-9, "day {day}: {change}");
            assert!(change >= -step.day_down - 1e-9, "day {day}: {change}");
            (up, down) = (up.max(change), down.min(change));
        }
    }
    let truth = quantile(&mut host.syn, 0.995);
    let learned = host.tuner.triggers().syn;
    println!(
        "attackers {:4.0} %: largest day {:+.0} % {:+.0} %, learned {learned:.1} SYN/s, true q99.5 {truth:.1}",
        share * 100.0,
        up * 100.0,
        down * 100.0
    );
    (learned, truth)
}

#[test]
fn w05_an_attacker_from_the_start_moves_no_threshold_beyond_the_daily_bound() {
    for share in [0.01, 0.1, 0.5] {
        let (learned, _) = largest_drift(share);
        // Never beyond what the attacker himself sends, however many he is.
        assert!(learned <= 60.0 * 1.2, "{share}: {learned}");
    }
}

#[test]
fn w05_a_ramp_does_not_raise_its_own_trigger_without_bound() {
    let mut host = Host::new(config(), plan(), 200);
    host.days(14);
    let settled = host.tuner.triggers();
    host.attackers = 1;
    // Just below what would limit it, whatever the trigger is by then.
    for day in 0..14 {
        host.attack = 1.9 * host.tuner.triggers().syn;
        let before = host.tuner.triggers().syn;
        host.days(1);
        let after = host.tuner.triggers().syn;
        assert!(after <= before * 1.1 + 1e-9, "day {day}");
    }
    let after = host.tuner.triggers().syn;
    assert!(
        after <= settled.syn * 1.1_f64.powi(4),
        "a tenth each 84 h at most"
    );
}

/// Present from the first tick and always just below what would limit it: nothing tells it from a
/// client, so it is learned from. It gains the daily bound each day, and never more than the ceiling
/// over what the profile says; steady, a tenth each 84 h.
#[test]
fn w05_a_slow_poison_from_the_start_gains_the_daily_bound_and_no_more_than_the_ceiling() {
    for share in [0.01, 0.1, 0.5] {
        let mut host = Host::new(config(), plan(), 100);
        host.attackers = f64::ceil(100.0 * share / (1.0 - share)) as u32;
        let start = host.tuner.triggers().syn;
        let (mut bound, mut settled) = (start, start);
        for day in 0..21 {
            host.attack = 1.9 * host.tuner.triggers().syn;
            let before = host.tuner.triggers().syn;
            host.days(1);
            let after = host.tuner.triggers().syn;
            let step = *plan().step(plan().phase(Duration::from_secs(day * DAY)));
            assert!(after <= before * (1.0 + step.day_up) + 1e-9, "day {day}");
            bound *= 1.0 + step.day_up;
            assert!(
                after <= bound.min(plan().ceiling * start) + 1e-9,
                "day {day}"
            );
            if day == 13 {
                settled = after;
            }
        }
        let after = host.tuner.triggers().syn;
        println!(
            "poison {:3.0} %: profile {start:.0} SYN/s, after 14 days {settled:.0}, after 21 {after:.0}, ceiling {:.0}",
            share * 100.0,
            plan().ceiling * start
        );
        assert!(
            after <= settled * 1.1_f64.powi(2) + 1e-9,
            "two steps of a tenth in a week"
        );
    }
}

#[test]
fn w30_an_attack_does_not_stop_the_clock_for_others() {
    let mut host = Host::new(config(), plan(), 200);
    host.attackers = 40;
    host.attack = 50_000.0;
    host.days(14);
    assert_eq!(host.tuner.phase(), Phase::Steady);
    let learned = host.tuner.triggers();
    let syn = error("syn", learned.syn, &mut host.syn);
    assert!(syn.abs() <= 0.2, "{syn}");
    let share = host.tuner.history().last().unwrap().clean_share;
    assert!((0.3..0.9).contains(&share), "{share}");
}

#[test]
fn w32_what_is_old_is_forgotten() {
    let mut host = Host::new(config(), plan(), 200);
    host.days(14);
    let busy = host.tuner.triggers().pps;
    host.clients = 40;
    host.days(28);
    let state = serde_json::to_string(host.tuner.state()).unwrap();
    assert!(state.len() < 400_000, "{}", state.len());
    let quiet = host.tuner.triggers().pps;
    assert!(
        (quiet / busy - 1.0).abs() < 0.3,
        "one client is as loud as before"
    );
}
