//! The schedule: which attack begins when, and the loop that watches what comes of it.

use std::time::Duration;

use super::board::Board;
use super::lab::{
    Assault, Attack, Family, Flood, Kernloom, Lab, Load, Result, Stage, Transition, now, wait_until,
};
use super::screen::{Colour, Screen};

/// One attack, from an address of its own.
pub(crate) struct Scene {
    pub(crate) client: &'static str,
    pub(crate) title: &'static str,
    /// Seconds after the benign load began.
    at: u64,
    /// Seconds after which it is told to stop, if its packets have not run out.
    longest: u64,
    pub(crate) assault: Assault,
}

/// The SYN flood lasts long enough to pass the block gate, on a busy machine too.
pub(crate) const SCENES: [Scene; 5] = [
    Scene {
        client: "syn4",
        title: "SYN flood",
        at: 3,
        longest: 20,
        assault: SYN4,
    },
    Scene {
        client: "scan4",
        title: "port scan",
        at: 7,
        longest: 20,
        assault: scan(Family::V4),
    },
    Scene {
        client: "udp4",
        title: "UDP flood",
        at: 11,
        longest: 10,
        assault: UDP4,
    },
    Scene {
        client: "syn6",
        title: "SYN flood",
        at: 18,
        longest: 10,
        assault: SYN6,
    },
    Scene {
        client: "scan6",
        title: "port scan",
        at: 24,
        longest: 20,
        assault: scan(Family::V6),
    },
];

const SYN4: Assault = flood(Flood::Syn4, 150_000, 100);
const UDP4: Assault = flood(Flood::Udp4, 75_000, 100);
const SYN6: Assault = flood(Flood::Syn6, 30_000, 400);

/// After this the story ends, released or not.
const LONGEST: Duration = Duration::from_secs(85);

/// How often the benign count is told.
const NEWS: Duration = Duration::from_secs(10);

const fn flood(flood: Flood, packets: u32, gap_us: u64) -> Assault {
    Assault::Flood {
        flood,
        packets,
        gap: Duration::from_micros(gap_us),
    }
}

const fn scan(family: Family) -> Assault {
    Assault::Scan {
        technique: "-sS",
        family,
        ports: 1_000,
    }
}

/// Plays all scenes until every attack is over and released, and the benign load has ended.
pub(crate) fn play(
    lab: &Lab,
    iq: &mut Kernloom,
    load: &mut Load,
    board: &mut Board,
    screen: &mut Screen,
) -> Result<()> {
    let began = now();
    let mut news = NEWS;
    let mut told = 0;
    wait_until(LONGEST + NEWS, "the end of the story", || {
        let elapsed = now().duration_since(began);
        launch_due(lab, elapsed, board, screen)?;
        report_ends(board, screen)?;
        iq.check_running()?;
        for line in iq.fresh_lines() {
            board.notice(&line);
        }
        for step in iq.transitions().iter().skip(told) {
            told += 1;
            report_move(step, board, screen);
        }
        if elapsed >= news {
            news += NEWS;
            let tally = load.tally(None);
            let count = format!("{} requests answered, {} lost", tally.answered, tally.lost);
            let colour = if tally.lost == 0 {
                Colour::Plain
            } else {
                Colour::Bad
            };
            screen.event(colour, "benign", &count);
        }
        Ok((board.all_settled() && load.ended()?) || elapsed >= LONGEST)
    })
}

fn launch_due(lab: &Lab, elapsed: Duration, board: &mut Board, screen: &mut Screen) -> Result<()> {
    for row in board
        .rows_mut()
        .iter_mut()
        .filter(|row| row.attack.is_none())
    {
        if elapsed >= Duration::from_secs(row.scene.at) {
            let attack = Attack::launch(lab, row.scene.client, row.scene.assault)?;
            row.attack = Some(attack);
            screen.event(Colour::Bad, "attack", &format!("{} begins", row.name()));
        }
    }
    Ok(())
}

fn report_ends(board: &mut Board, screen: &mut Screen) -> Result<()> {
    for row in board.rows_mut().iter_mut().filter(|row| !row.over) {
        let name = row.name();
        let Some(attack) = &mut row.attack else {
            continue;
        };
        if attack.ended()? {
            attack.finish(Duration::from_secs(5))?;
            row.over = true;
            row.sent = attack.sent();
            let sent = row
                .sent
                .map_or(String::new(), |sent| format!(" after {sent} packets"));
            screen.event(Colour::Plain, "attack", &format!("{name} ends{sent}"));
        } else if !row.told_to_stop
            && now().duration_since(attack.began) >= Duration::from_secs(row.scene.longest)
        {
            row.told_to_stop = true;
            attack.interrupt()?;
        }
    }
    Ok(())
}

fn report_move(step: &Transition, board: &mut Board, screen: &mut Screen) {
    let (who, after) = match board.record(step) {
        Some(row) => (row.name(), row.age_at(step.at)),
        None => (step.source.clone(), None),
    };
    let (word, colour) = match (step.tightens(), step.to) {
        (true, Stage::Block) => ("blocked", Colour::Warn),
        (true, _) => ("limited", Colour::Warn),
        (false, _) if step.releases() => ("released", Colour::Good),
        (false, _) => ("eased", Colour::Good),
    };
    let after = after.map_or(String::new(), |age| {
        format!(" after {:.1} s", age.as_secs_f64())
    });
    screen.event(
        colour,
        word,
        &format!("{who}{after}: {} -> {}", step.from, step.to),
    );
    screen.detail(&step.reason);
}
