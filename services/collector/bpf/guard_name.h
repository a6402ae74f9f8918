/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Names that may not be looked up. The map is every object's; what looks into it is the packet programs' alone. */
#pragma once

#include "kernel.h"
#include <bpf/bpf_helpers.h>

/*
 * Names backwards, in lower case (RFC 4343), with a zero for the length of each label (RFC 1035 3.1): moc 0 elpmaxe 0 begins
 * all names below example.com, and that name itself ends with one more zero. So a prefix ends where a label does. A label
 * that has a zero in it, which no host's name has, counts as two. A scope that has any also has the prefix of all, with the value 0.
 */
#define GUARD_NAME_MAX 240

struct guard_name_key {
	__u32 bits;
	__u32 generation;
	__u32 scope;
	__u8 name[GUARD_NAME_MAX];
};

#define GUARD_NAME_FIXED 8 /* bytes of the key before the name, bits apart */

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard_name_key);
	__type(value, __u32);
} guard_names SEC(".maps");
