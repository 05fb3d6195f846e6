//! `shield events`: asked of the running IQ, which reads the ring; read from it where none runs.

use std::time::Duration;

use super::super::iq::{self, Asked};
use super::super::{opened, pins};
use crate::cli::{EventsArgs, Places};
use crate::error::{Error, Result};
use crate::report::{EventLine, event_headings, event_json_lines, event_lines, events_json, print};
use crate::runtime::{moment, wait};

/// How often a follower looks.
const LOOK: Duration = Duration::from_millis(500);

pub(super) fn events(places: &Places, args: &EventsArgs) -> Result<()> {
    let mut last = 0;
    let mut news = heard(places, last)?;
    if !args.follow {
        return print(&match (args.json, news.is_empty()) {
            (true, _) => events_json(&news),
            (false, true) => "the program reported nothing\n".to_owned(),
            (false, false) => event_headings() + &event_lines(&news),
        });
    }
    if !args.json {
        print(&event_headings())?;
    }
    loop {
        last = news.last().map_or(last, |event| event.number);
        print(&if args.json {
            event_json_lines(&news)
        } else {
            event_lines(&news)
        })?;
        wait(LOOK)?;
        news = heard(places, last)?;
    }
}

/// What came after the event of that number.
fn heard(places: &Places, last: u64) -> Result<Vec<EventLine>> {
    // An IQ that starts meanwhile must not share the ring.
    let asked = iq::ask_or_alone(&places.run_dir, || iq::events(&places.run_dir, last))?;
    let _alone = match asked {
        Asked::Told(events) => return Ok(events),
        Asked::Alone(lock) => lock,
    };
    let shield = opened(&pins(places))?;
    let Some(ring) = shield.events()? else {
        return Err(Error::operator(
            "the loaded program reports no events; attach it with --features learn or more",
        ));
    };
    let now = moment()?;
    let numbered = (last + 1..).zip(ring.drain());
    Ok(numbered
        .map(|(number, event)| EventLine::of(number, &event, now))
        .collect())
}
