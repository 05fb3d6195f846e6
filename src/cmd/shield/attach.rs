use super::guard::open_way_in;
use crate::cli::{AttachArgs, DetachArgs, Mode, SizeArgs, UpgradeArgs};
use crate::dataplane::{
    AttachMode, Attached, LoadOptions, Lock, ModeChoice, PinDir, Shield, Sizes, default_interface,
    interface_index,
};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::model::Source;
use crate::report::{MERGED, attached_line, print};
use crate::runtime::patiently;

pub(super) fn load_options(sizes: &SizeArgs) -> LoadOptions {
    let default = LoadOptions::default();
    LoadOptions {
        sources: sizes.sources.unwrap_or(default.sources),
        max_deny: sizes.max_deny.unwrap_or(default.max_deny),
        ..default
    }
}

pub(super) fn attach(pins: &PinDir, host: &Host, args: &AttachArgs) -> Result<()> {
    let given = if args.ifaces.is_empty() {
        host.interfaces()
    } else {
        &args.ifaces
    };
    let interfaces = match args.wait {
        Some(patience) => patiently(patience, || named(given))?,
        None => named(given)?,
    };
    let lock = pins.create_locked()?;
    let fresh = !pins.is_loaded()?;
    let mut text = String::new();
    if !fresh {
        // A unit that starts again says what it said the first time.
        let there = Shield::features(pins)?;
        if args.features.is_some_and(|wanted| wanted != there) {
            return Err(Error::operator(
                "the data plane is loaded already, with other features; 'kernloom shield detach --purge', then attach \
                 anew with --features",
            ));
        }
        text.push_str(&renew(pins, &args.sizes, &lock)?);
    }
    let options = LoadOptions {
        features: args.features.unwrap_or_default(),
        ..load_options(&args.sizes)
    };
    let shield = Shield::open_or_load(pins, &options, &lock)?;
    match protect(pins, &shield, &host.management, args, &interfaces, &lock) {
        Ok(done) => {
            drop(lock);
            print(&(text + &done))
        }
        Err(error) => {
            drop(shield);
            if fresh {
                Shield::purge(pins, &lock)?;
            }
            Err(error)
        }
    }
}

/// Those to attach to; each is there.
fn named(ifaces: &[String]) -> Result<Vec<String>> {
    if ifaces.is_empty() {
        return Ok(vec![default_interface("kernloom shield attach eth0")?]);
    }
    for interface in ifaces {
        interface_index(interface)?;
    }
    Ok(ifaces.to_vec())
}

fn sizes_of(args: &SizeArgs) -> Sizes {
    Sizes {
        sources: args.sources,
        max_deny: args.max_deny,
    }
}

/// What is loaded already is kept; a newer program takes its place.
fn renew(pins: &PinDir, sizes: &SizeArgs, lock: &Lock) -> Result<String> {
    if Shield::resizes(pins, &sizes_of(sizes))? {
        return Err(Error::operator(
            "the data plane is loaded already, with other sizes; 'kernloom shield upgrade' takes --sources and \
             --max-deny and changes them without a gap",
        ));
    }
    if !Shield::is_outdated(pins)? {
        return Ok(String::new());
    }
    let done = Shield::upgrade(pins, &Sizes::default(), lock)?;
    Ok(format!("upgraded what was running: {done}\n"))
}

/// All interfaces or none; the way in is kept open first.
fn protect(
    pins: &PinDir,
    shield: &Shield,
    management: &[Source],
    args: &AttachArgs,
    interfaces: &[String],
    lock: &Lock,
) -> Result<String> {
    let mut text = open_way_in(shield, management, args.no_guard, lock)?;
    let choice = match args.mode {
        Mode::Auto => ModeChoice::Auto,
        Mode::Driver => ModeChoice::Only(AttachMode::Driver),
        Mode::Generic => ModeChoice::Only(AttachMode::Generic),
        Mode::Tc => ModeChoice::Only(AttachMode::Tc),
    };
    let mut done: Vec<Attached> = Vec::new();
    for interface in interfaces {
        match shield.attach(pins, interface, choice, args.force, lock) {
            Ok(attached) => {
                text.push_str(&format!("{}\n", attached_line(&attached)));
                if attached.mode == Some(AttachMode::Tc) && !attached.already {
                    let (what, mend) = MERGED;
                    text.push_str(&format!(
                        "{interface}: {what}; {}\n",
                        mend.replace("IFACE", interface)
                    ));
                }
                done.push(attached);
            }
            Err(error) => {
                for attached in done.iter().filter(|attached| !attached.already) {
                    Shield::detach(pins, attached.ifindex, lock)?;
                }
                return Err(error);
            }
        }
    }
    Ok(text)
}

pub(super) fn upgrade(pins: &PinDir, args: &UpgradeArgs) -> Result<()> {
    pins.must_be_loaded()?;
    let lock = pins.lock()?;
    let done = Shield::upgrade(pins, &sizes_of(&args.sizes), &lock)?;
    let mut text = format!("{done}\n");
    for interface in &done.interfaces {
        text.push_str(&format!("{interface}: changed over\n"));
    }
    drop(lock);
    print(&text)
}

pub(super) fn detach(pins: &PinDir, args: &DetachArgs) -> Result<()> {
    if !pins.is_made()? {
        return Err(Error::operator(format!(
            "nothing is attached: {} does not exist",
            pins.path().display()
        )));
    }
    pins.refuse_other_places()?;
    let lock = pins.lock()?;
    let attached = Shield::attached(pins)?;
    let chosen: Vec<_> = match (&args.iface, attached.as_slice()) {
        (Some(name), _) => attached
            .iter()
            .filter(|attached| attached.interface == *name)
            .collect(),
        (None, all) if args.all || all.len() <= 1 => all.iter().collect(),
        (None, all) => {
            let names: Vec<&str> = all
                .iter()
                .map(|attached| attached.interface.as_str())
                .collect();
            return Err(Error::operator(format!(
                "attached to {}; name one, or give --all",
                names.join(", ")
            )));
        }
    };
    if chosen.is_empty() && !args.purge {
        let name = args
            .iface
            .as_deref()
            .map(|name| format!(" to {name}"))
            .unwrap_or_default();
        return Err(Error::operator(format!(
            "not attached{name}; 'kernloom shield status' shows where it is"
        )));
    }
    let mut text = String::new();
    for attached in &chosen {
        Shield::detach(pins, attached.ifindex, &lock)?;
        text.push_str(&format!("{}: detached\n", attached.interface));
    }
    if args.purge {
        Shield::purge(pins, &lock)?;
        text.push_str("policy and counters forgotten\n");
    } else if chosen.len() == attached.len() {
        text.push_str("policy and counters kept; 'kernloom shield detach --purge' forgets them\n");
    }
    drop(lock);
    print(&text)
}
