//! Programs broken on purpose, each in one place. An oracle that lets one of them pass for the
//! real program proves nothing about it.

use kernloom::dataplane::LoadOptions;

use super::frames::Rng;
use super::variant::{Patch, Variant};
use super::{Rig, agree, seed};

/// Packets after which a mutant counts as not caught.
const PACKETS: usize = 40_000;

const fn patch(file: &'static str, from: &'static str, to: &'static str) -> Patch {
    Patch { file, from, to }
}

const MUTANTS: &[Patch] = &[
    // What a frame is.
    patch("abi.h", "KL_VLAN_DEPTH = 4", "KL_VLAN_DEPTH = 3"),
    patch("abi.h", "KL_EXT_DEPTH = 6", "KL_EXT_DEPTH = 5"),
    patch("parse.h", "ip->version != 4 || ihl", "ihl"),
    patch("parse.h", "total < ihl ||", ""),
    patch(
        "parse.h",
        "total < ihl || pkt->end > pkt->len",
        "total < ihl",
    ),
    patch("parse.h", "ip->version != 6 || pkt->end", "pkt->end"),
    patch(
        "parse.h",
        "ip->version != 6 || pkt->end > pkt->len",
        "ip->version != 6",
    ),
    patch(
        "parse.h",
        "pkt->l4 = l3 + ihl;",
        "pkt->l4 = l3 + sizeof(*ip);",
    ),
    patch(
        "parse.h",
        "#define KL_FRAG4_OFFSET 0x1fff",
        "#define KL_FRAG4_OFFSET 0x0fff",
    ),
    patch(
        "parse.h",
        "#define KL_FRAG4_MORE 0x2000",
        "#define KL_FRAG4_MORE 0x4000",
    ),
    patch(
        "parse.h",
        "#define KL_FRAG6_OFFSET 0xfff8",
        "#define KL_FRAG6_OFFSET 0xffff",
    ),
    patch("parse.h", "(ext->len + 2) * 4", "(ext->len + 1) * 8"),
    patch("parse.h", "field >> 8 == 0", "field >> 8 == 2"),
    patch("parse.h", "off + size <= pkt->end && data", "data"),
    patch("parse.h", "		pkt->more = 1;\n", ""),
    patch("parse.h", "if (pkt->odd < odd)", "if (!pkt->odd)"),
    patch(
        "parse.h",
        "!kl_has(data, end, pkt, off, 14)",
        "!kl_has(data, end, pkt, off, 20)",
    ),
    patch("parse.h", "tcp->syn & !tcp->ack", "tcp->syn"),
    patch(
        "parse.h",
        "tcp->ack & !tcp->syn & !tcp->rst",
        "tcp->ack & !tcp->syn",
    ),
    patch("parse.h", "tcp->doff < sizeof(*tcp) / 4", "0"),
    patch("parse.h", "|| off + tcp->doff * 4 > pkt->end", ""),
    patch(
        "parse.h",
        "(!pkt->more && off + len > pkt->end)",
        "off + len > pkt->end",
    ),
    patch("parse.h", "if (dest < source)", "if (dest <= source)"),
    patch("parse.h", "pkt->opens = !pkt->ack;", "pkt->opens = 1;"),
    patch(
        "parse.h",
        "pkt->opens = !pkt->ack;",
        "pkt->opens = pkt->syn;",
    ),
    patch("parse.h", "KL_ICMP_LEAST 8", "KL_ICMP_LEAST 4"),
    // Whose it is and what policy says.
    patch("policy.h", "prefix->bits < KL_MAPPED_BITS", "0"),
    patch(
        "policy.h",
        "now_ns() >= policy->expires_ns",
        "now_ns() > policy->expires_ns + (1 << 30)",
    ),
    patch(
        "policy.h",
        "if (bits > own_bits)",
        "if (bits > own_bits + 1)",
    ),
    patch("policy.h", "owner == KL_OWNER_IQ ||", ""),
    patch(
        "policy.h",
        "!= kl_control.generation || verdict & KL_VERDICT_EACH",
        "!= kl_control.generation",
    ),
    patch(
        "policy.h",
        "!= kl_control.generation || verdict",
        "== 0 || verdict",
    ),
    patch(
        "policy.h",
        "key.bits = prefix->bits - 1;",
        "key.bits = prefix->bits;",
    ),
    patch(
        "shield.bpf.c",
        "== KL_ACTION_DENY)",
        "== KL_ACTION_DENY && !pkt->odd)",
    ),
    patch(
        "shield.bpf.c",
        "if (pkt->odd == KL_REASON_ROUTING_0)",
        "if (0)",
    ),
    patch(
        "shield.bpf.c",
        "if (!(verdict & KL_VERDICT_KNOWN)) {",
        "if (action != KL_ACTION_ALLOW) {",
    ),
    patch("essential.h", "pkt->ttl == KL_ND_HOPS", "1"),
    patch(
        "essential.h",
        "pkt->ttl == KL_MLD_HOPS && kl_on_link(pkt)",
        "pkt->ttl == KL_MLD_HOPS",
    ),
    patch(
        "essential.h",
        "KL_ICMP6_ERROR_LAST = 4",
        "KL_ICMP6_ERROR_LAST = 5",
    ),
    patch("essential.h", "|| pkt->more ||", "||"),
    // How much of it passes.
    patch("limiter.h", "if (tat < now)\n				tat = now;", ""),
    patch(
        "limiter.h",
        "policy->tat_ns = tat + lease",
        "policy->tat_ns = now + lease",
    ),
    patch(
        "limiter.h",
        "verdict & KL_VERDICT_HELD || !src->not_before",
        "!src->not_before",
    ),
    patch(
        "limiter.h",
        "KL_IN_JIFFIES | (jiffies + ",
        "KL_IN_JIFFIES | (jiffies + 9 + ",
    ),
    patch(
        "limiter.h",
        "tolerance >> kl_config.jiffy_shift ? 1 : 0",
        "1",
    ),
    patch(
        "limiter.h",
        "tolerance >> kl_config.jiffy_shift ? 1 : 0",
        "0",
    ),
    patch(
        "limiter.h",
        "KL_NOT_BEFORE_SHIFT) & ~KL_IN_JIFFIES",
        "KL_NOT_BEFORE_SHIFT) | KL_IN_JIFFIES",
    ),
    patch(
        "policy.h",
        "if ((verdict ^ src->verdict) & ((1 << KL_VERDICT_SHIFT) - 1))\n			src->not_before = 0;",
        "",
    ),
    patch("shield.bpf.c", "(pkt->opens || !kl_only_new(action))", "1"),
    // What is counted.
    patch(
        "shield.bpf.c",
        "	src->drops += reason >= KL_REASON_DROPS;\n",
        "",
    ),
    patch(
        "shield.bpf.c",
        "	src->bytes += pkt->len;\n",
        "	src->bytes += pkt->end;\n",
    ),
    patch("telemetry.h", "	src->acks += pkt->ack;\n", ""),
    patch(
        "telemetry.h",
        "port->udp += pkt->proto == IPPROTO_UDP;",
        "port->udp++;",
    ),
    patch(
        "telemetry.h",
        "port->udp += pkt->proto == IPPROTO_UDP;",
        "port->udp += !pkt->syn;",
    ),
    patch("abi.h", "KL_LENGTH_SHIFT = 7", "KL_LENGTH_SHIFT = 8"),
    patch("telemetry.h", "if (pkt->port) {", "if (pkt->opens) {"),
];

/// Those of `mutants` that pass for the program.
fn survivors(name: &str, mutants: &[Patch]) -> Vec<Patch> {
    let mut rig = Rig::new(name, LoadOptions::default());
    let mut survivors = Vec::new();
    for mutant in mutants {
        let variant = Variant::load(&rig.pins, "kernloom", Some(mutant));
        let program = |_: &Rig, frame: &[u8]| variant.run(frame);
        let mut rng = Rng(seed());
        if agree(&mut rig, &program, &mut rng, PACKETS).is_ok() {
            survivors.push(*mutant);
        }
    }
    survivors
}

#[test]
fn every_mutant_is_caught() {
    // Half of the time goes to the compiler: two at once.
    let (some, others) = MUTANTS.split_at(MUTANTS.len() / 2);
    let survivors = std::thread::scope(|scope| {
        let others = scope.spawn(|| survivors("mutants-b", others));
        let mut all = survivors("mutants-a", some);
        all.extend(others.join().unwrap());
        all
    });
    assert!(survivors.is_empty(), "not caught: {survivors:#?}");
}
