//! Edge stages broken on purpose, each in one place. That edges of one set are told apart is held by
//! `edges_that_share_a_set_are_told_apart`: random edges hardly ever share one.

use super::variant::Patch;

const fn patch(file: &'static str, from: &'static str, to: &'static str) -> Patch {
    Patch { file, from, to }
}

/// Edge stages broken on purpose, each in one place.
pub const MUTANTS: &[Patch] = &[
    // Whose edge it is.
    patch(
        "edges.h",
        "kl_has_ports(pkt->proto) ? bpf_ntohs(port) : 0",
        "bpf_ntohs(port)",
    ),
    patch("edges.h", "proto == IPPROTO_SCTP ||", ""),
    patch(
        "edges.h",
        "e->by = KL_EDGE_BY_SOURCE;\n		return *permit;",
        "return KL_EDGE_ALLOWED;",
    ),
    patch(
        "edges.h",
        "e->by = KL_EDGE_BY_GROUP;\n			return *permit;",
        "return KL_EDGE_ALLOWED;",
    ),
    patch("edges.h", "	if (group) {", "	if (0) {"),
    patch("edges.h", "if (word & KL_GRAPH_SCOPED) {", "if (0) {"),
    patch(
        "edges.h",
        "if (!bpf_map_lookup_elem(graph, &e->wider)) {",
        "if (1) {",
    ),
    patch(
        "edges.h",
        "e->wider.service |= KL_EDGE_GROUP << KL_SERVICE_KIND_SHIFT;",
        "e->wider.service = (e->key.service & KL_SERVICE_ANY_KIND) | KL_EDGE_GROUP << KL_SERVICE_KIND_SHIFT;",
    ),
    patch(
        "edges.h",
        "return group ? *group : KL_GROUP_INTERNET;",
        "return group ? *group : KL_GROUP_NONE;",
    ),
    patch("edges.h", "		.bits = 128,", "		.bits = 120,"),
    patch("edges.h", "kl_now_ns() >= kl_graph.lease_ns)", "0)"),
    patch(
        "edges.h",
        "((word >> KL_GRAPH_AFTER_SHIFT) & KL_GRAPH_NOW)",
        "((word >> KL_GRAPH_AFTER_SHIFT) & KL_GRAPH_MODE)",
    ),
    patch(
        "edges.h",
        "if (way && way->stamp == word)\n		return way->verdict",
        "if (way)\n		return way->verdict",
    ),
    patch(
        "edges.h",
        "(KL_TCP_SYN | KL_TCP_ACK | KL_TCP_RST)) == KL_TCP_SYN",
        "(KL_TCP_SYN | KL_TCP_RST)) == KL_TCP_SYN",
    ),
    patch(
        "edges.h",
        "!kl_has(data, end, pkt, off, 14)",
        "!kl_has(data, end, pkt, off, 20)",
    ),
    patch(
        "edges.h",
        "!kl_has(data, end, pkt, off, 8)",
        "!kl_has(data, end, pkt, off, 12)",
    ),
    // What passes whatever the graph says.
    patch("graph.h", "if (pkt->proto == IPPROTO_IGMP)", "if (0)"),
    patch(
        "graph.h",
        "	if (kl_essential(data, end, pkt))\n		return 1;\n",
        "	if (kl_essential(data, end, pkt) || pkt->proto == IPPROTO_IGMP)\n		return 1;\n",
    ),
    patch("graph.h", "if (kl_essential(data, end, pkt))", "if (0)"),
    patch("graph.h", "&& e->flow.lport == client;", ";"),
    patch("graph.h", "server = bpf_htons(KL_PORT_DHCP_SERVER);", ""),
    patch("graph.h", "client = bpf_htons(KL_PORT_DHCP_CLIENT);", ""),
    patch(
        "graph.h",
        "	} else if (!near) {",
        "	} else if (e->flow.rport == bpf_htons(KL_PORT_DHCP_SERVER)) {\n		return 1;\n	} else if (!near) {",
    ),
    patch("graph.h", "} else if (!near) {", "} else if (0) {"),
    patch("graph.h", "} else if (!near) {", "} else {"),
    patch(
        "graph.h",
        "kl_always(data, end, pkt, e, kl_link_local(pkt->addr[0]))",
        "kl_always(data, end, pkt, e, 1)",
    ),
    patch("egress.h", "cast || kl_link_local(pkt->addr[0])", "cast"),
    patch(
        "egress.h",
        "cast || kl_link_local(pkt->addr[0])",
        "kl_link_local(pkt->addr[0])",
    ),
    patch("egress.h", "cast || kl_link_local(pkt->addr[0])", "1"),
    patch(
        "graph.h",
        "jiffies - *seen < KL_FRAG_S * kl_control.hz",
        "1",
    ),
    patch("graph.h", "		e->frag.source[i] = pkt->addr[i];\n", ""),
    patch(
        "graph.h",
        "	e->frag.id = pkt->frag_id;\n",
        "	e->frag.id = 0;\n",
    ),
    patch(
        "graph.h",
        "if (pkt->more && !kl_edge_drops(reason)) {",
        "if (pkt->more) {",
    ),
    patch("graph.h", "pkt->odd >= KL_REASON_EXT_DEPTH ||", ""),
    patch("graph.h", "*(__u8 *)data & 1 && kl_group_of", "kl_group_of"),
    patch(
        "graph.h",
        "kl_group_of(e->local, word) == KL_GROUP_BROADCAST",
        "1",
    ),
    // What is cached.
    patch(
        "graph.h",
        "pkt->odd || !pkt->ports || pkt->cast",
        "pkt->odd || !pkt->ports",
    ),
    patch(
        "graph.h",
        "way->stamp != word || way->verdict != KL_EDGE_ALLOWED)",
        "way->verdict != KL_EDGE_ALLOWED)",
    ),
    patch(
        "graph.h",
        "way->stamp != word || way->verdict != KL_EDGE_ALLOWED)",
        "way->stamp != word)",
    ),
    // What each mode makes of it.
    patch(
        "graph.h",
        "mode == KL_GRAPH_OBSERVE ? KL_REASON_EDGE_OBSERVED : KL_REASON_PASS",
        "KL_REASON_PASS",
    ),
    patch("graph.h", "if (verdict == KL_EDGE_DENIED)", "if (0)"),
    patch(
        "graph.h",
        "return missing == KL_REASON_PASS ? reason : missing;",
        "return reason;",
    ),
    // What is a reply, and what goes on.
    patch(
        "flows.h",
        "if (proto != IPPROTO_TCP)\n		return KL_FLOW_UDP_S * hz;",
        "if (0)\n		return KL_FLOW_UDP_S * hz;",
    ),
    patch(
        "flows.h",
        "flow->stage == KL_FLOW_CLOSING ? KL_FLOW_CLOSING_S : KL_FLOW_TCP_S",
        "KL_FLOW_TCP_S",
    ),
    patch("flows.h", "jiffies - flow->seen > kl_control.hz)", "0)"),
    patch(
        "flows.h",
        "if (pkt->proto == IPPROTO_TCP && kl_edge_opens(pkt, e))\n		return 0;\n	kl_flow_key_of",
        "kl_flow_key_of",
    ),
    patch(
        "flows.h",
        "if (pkt->proto == IPPROTO_TCP && !(e->flags & KL_TCP_SYN))\n		return;",
        "",
    ),
    patch(
        "flows.h",
        "		least = KL_FLOW_COMPLETE;",
        "		least = KL_FLOW_OPEN;",
    ),
    patch("flows.h", "flow->stage != KL_FLOW_VIOLATION &&", ""),
    patch(
        "flows.h",
        "#define KL_ACK_WINDOW 65536",
        "#define KL_ACK_WINDOW 65535",
    ),
    patch("flows.h", "flow->stage != KL_FLOW_ANSWERED ||", ""),
    patch(
        "flows.h",
        "	if (way->handshakes >= way->connections)\n		return;\n",
        "",
    ),
    // What leaves.
    patch("egress.h", "mode != KL_GRAPH_ENFORCE) {", "1) {"),
    patch("egress.h", "bpf_ntohl(e->ack) + 1", "bpf_ntohl(e->ack)"),
    patch(
        "egress.h",
        "	if (kl_is_echo_reply(pkt, e))\n		return 1;\n",
        "",
    ),
    patch("egress.h", "	e->flow.lport = port;\n", ""),
    patch(
        "egress.h",
        "		return KL_REASON_PASS;	/* worth nothing",
        "		return KL_REASON_EDGE_FRAGMENT;	/* worth nothing",
    ),
    patch("egress.h", "	way->connections++;\n", ""),
    patch("egress.h", "if (!kl_edge_drops(reason))", "if (1)"),
    patch(
        "egress.h",
        "return mode != KL_GRAPH_LEARN && kl_answers_allowed",
        "return kl_answers_allowed",
    ),
    patch(
        "egress.h",
        "flow->stage == KL_FLOW_OPEN && proto != IPPROTO_TCP",
        "0",
    ),
    patch("egress.h", "			kl_edge_works(pkt, e, word, jiffies);\n", ""),
    patch(
        "egress.h",
        "mode != KL_GRAPH_ENFORCE && e->flags & KL_TCP_RST",
        "0",
    ),
    patch(
        "egress.h",
        "mode != KL_GRAPH_ENFORCE && e->flags & KL_TCP_RST",
        "e->flags & KL_TCP_RST",
    ),
    patch("egress.h", "		kl_identify6(pkt);\n", ""),
    // Who stands by himself.
    patch(
        "edges.h",
        "return (pkt->family == ETH_P_IPV6) *",
        "return 0 *",
    ),
    patch(
        "edges.h",
        "kind == KL_EDGE_CAST ? 0 : pkt->addr[i];",
        "kind == KL_EDGE_CAST ? 0 : pkt->key[i];",
    ),
    patch(
        "edges.h",
        "e->wider.peer[i] = pkt->key[i];",
        "e->wider.peer[i] = pkt->addr[i];",
    ),
    // Everyone in the prefix before the address.
    patch(
        "edges.h",
        "	permit = bpf_map_lookup_elem(graph, &e->key);\n",
        "	e->wider.service = e->key.service ^ host;\n	for (int i = 0; i < 4; i++)\n		e->wider.peer[i] = \
         pkt->key[i];\n	permit = host ? bpf_map_lookup_elem(graph, &e->wider) : 0;\n	if (permit)\n		return \
         *permit;\n	permit = bpf_map_lookup_elem(graph, &e->key);\n",
    ),
    patch(
        "edges.h",
        "(kind == KL_EDGE_CAST ? 0 : kl_edge_host(pkt))",
        "kl_edge_host(pkt)",
    ),
    patch("edges.h", "e->key.service ^ host;", "e->key.service;"),
    patch("edges.h", "	if (host) {", "	if (0) {"),
    patch(
        "edges.h",
        "e->by = KL_EDGE_BY_PREFIX;\n			return *permit;",
        "return KL_EDGE_ALLOWED;",
    ),
    patch("edges.h", "		e->wider.peer[3] = 0;\n", ""),
    // Who is exempt.
    patch(
        "policy.h",
        "	if (kl_exempts(policy))",
        "	if (policy->action == KL_ACTION_ALLOW)",
    ),
    patch("policy.h", "owner == KL_OWNER_MANAGEMENT || owner", "owner"),
    patch(
        "policy.h",
        "KL_OWNER_MANAGEMENT || owner == KL_OWNER_IQ)",
        "KL_OWNER_MANAGEMENT)",
    ),
    patch(
        "policy.h",
        "return (verdict & (KL_VERDICT_ACTION | KL_VERDICT_EXEMPT)) == both;",
        "return !!(verdict & KL_VERDICT_EXEMPT);",
    ),
    patch(
        "graph.h",
        "return verdict == KL_EDGE_UNKNOWN && e->exempt ?",
        "return e->exempt ?",
    ),
    patch(
        "graph.h",
        "return e->exempt ? KL_REASON_PASS : kl_edge_missing",
        "return kl_edge_missing",
    ),
    patch(
        "graph.h",
        "kl_edge_keep(e, way, answer, word, jiffies);",
        "kl_edge_keep(e, way, verdict | (answer & ~0xff), word, jiffies);",
    ),
    patch("graph.h", "if (verdict != (answer & 0xff))", "if (0)"),
    patch("graph.h", "if (verdict != (answer & 0xff))", "if (1)"),
];
