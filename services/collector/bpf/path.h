/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Paths from the kernel's own dentries, up to the root of the mount namespace (not the process's
 * root, which it may have moved). bpf_d_path() would do, but not in these hooks.
 */
#pragma once

#include "area.h"
#include "event.h"
#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/*
 * One step takes a component or crosses a mount: 2048 one-letter names make 4096 bytes. Where the verifier follows each
 * step, in each of some thirty programs, that would take it seconds: there they are taken in stretches.
 */
#define PATH_STEPS 2048
#define STRETCH_STEPS 64

/* Set by user space: the kernel has bpf_loop (Linux 5.17), of which the verifier looks at one step and not at all. */
const volatile __u8 has_loop = 0;

/* On the way from a dentry up to the root of the mount namespace. */
struct walk {
	struct area *area;
	struct dentry *dentry;
	struct dentry *root; /* of the mount */
	struct mount *mnt;
	__u64 whole;
};

#define WALK_ON	  0
#define WALK_DONE 1
#define WALK_FULL 2 /* as a stretch's end: no room for the rest */

static __always_inline struct mount *mount_of(__u64 vfsmnt)
{
	return (void *)(vfsmnt - bpf_core_field_offset(struct mount, mnt));
}

#ifndef LEGACY
/* The 8 bytes at an address, as those of some struct that begins with a number. */
static __always_inline __u64 word_at(const void *address)
{
	return TYPED((struct qstr *)address)->hash_len;
}

#define WORDS_MAX 4

/*
 * Copies a short name in words; that takes a third of the time of the helper. What is written over behind the name is put
 * back.
 */
static __always_inline void name_put_words(__u8 *to, __u64 len, const unsigned char *name)
{
	__u64 behind = *(__u64 *)&to[len];
	int i;

#pragma unroll
	for (i = 0; i < WORDS_MAX; i++) {
		*(__u64 *)&to[8 * i] = word_at(name + 8 * i);
		if (len <= 8 * (i + 1))
			break;
	}
	*(volatile __u64 *)&to[len] = behind;
}
#endif

/* The first two bytes of a name that has as many. */
static __always_inline void first_two(__u8 *to, const unsigned char *name)
{
#ifndef LEGACY
	if (has_cast) {
		__u64 word = word_at(name);

		to[0] = word;
		to[1] = word >> 8;
		return;
	}
#endif
	bpf_probe_read_kernel(to, 2, name);
}

/* Puts "/name" before the path. Returns false if there is no room. */
static __always_inline bool path_prepend(struct area *a, struct dentry *dentry)
{
	__u64 at = a->path_at, len = FOLLOW(dentry, d_name.len) & NAME_MAX;
	const unsigned char *name = FOLLOW(dentry, d_name.name);
	__u8 *to;

	if (at <= len)
		return false;
	at -= len + 1;
	a->path_at = at;
	a->path[HEADROOM + (at & (PATH_MAX - 1))] = '/';
	to = &a->path[HEADROOM + ((at + 1) & (PATH_MAX - 1))];
#ifndef LEGACY
	if (has_cast && len <= 8 * WORDS_MAX) {
		name_put_words(to, len, name);
		return true;
	}
#endif
	bpf_probe_read_kernel(to, len, name);
	return true;
}

static long walk_step(__u32 i, struct walk *w)
{
	/* Out of w first: what is read through w would be relocated as if the kernel had such a struct. */
	struct dentry *dentry = w->dentry, *parent;
	struct mount *mnt = w->mnt, *above;

	if (dentry == w->root) {
		above = FOLLOW(mnt, mnt_parent);
		if (above == mnt || !above)
			return WALK_DONE;
		w->dentry = FOLLOW(mnt, mnt_mountpoint);
		w->mnt = above;
		w->root = FOLLOW(above, mnt.mnt_root);
		return WALK_ON;
	}
	parent = FOLLOW(dentry, d_parent);
	if (!parent)
		return WALK_DONE;
	w->whole = path_prepend(w->area, dentry);
	/* A root that is not its mount's: memfd and its like, or moved out of the mount. */
	if (!w->whole || parent == dentry)
		return WALK_DONE;
	w->dentry = parent;
	return WALK_ON;
}

static __always_inline void walk_begin(struct walk *w)
{
	struct mount *mnt = mount_of(w->area->mnt);

	w->dentry = (void *)w->area->dentry;
	w->mnt = mnt;
	w->root = FOLLOW(mnt, mnt.mnt_root);
}

/* Walks a stretch of the way and leaves in the area where it ended. The verifier follows its steps once a program. */
__attribute__((noinline)) int path_stretch(int number)
{
	struct walk w = { .area = area_of(number), .whole = true };
	int i;

	if (!w.area)
		return WALK_DONE;
	walk_begin(&w);
	for (i = 0; i < STRETCH_STEPS; i++)
		if (walk_step(i, &w) == WALK_DONE)
			return w.whole ? WALK_DONE : WALK_FULL;
	w.area->dentry = (__u64)w.dentry;
	w.area->mnt = (__u64)w.mnt + bpf_core_field_offset(struct mount, mnt);
	return WALK_ON;
}

/*
 * Writes the path of the area's (dentry, mnt) into the area so that it starts at path_at and ends at PATH_MAX. Returns
 * false if it did not fit; what is there is then the path's end. Global, so that the verifier walks
 * the loop once a program and not once a call, and with a number only, because Linux before 5.12 hands a global function
 * no memory; path_at is in memory so that it does not track a range for it in every step (it gives
 * up after a million instructions).
 */
__attribute__((noinline)) int path_walk(int number)
{
	struct walk w = { .area = area_of(number), .whole = true };
	int i, end;

	if (!w.area)
		return true;
	w.area->path_at = PATH_MAX;
#ifndef LEGACY
	if (has_loop) {
		walk_begin(&w);
		return bpf_loop(PATH_STEPS, walk_step, &w, 0) == PATH_STEPS ? false : w.whole;
	}
#endif
	for (i = 0; i < PATH_STEPS / STRETCH_STEPS; i++) {
		end = path_stretch(number);
		if (end != WALK_ON)
			return end == WALK_DONE;
	}
	return false;
}

/* Finds the path of (dentry, mnt), which is then in the area from HEADROOM plus the returned number to the end. */
static __always_inline __u64 path_find(struct area *a, int number, struct dentry *dentry,
				       struct vfsmount *mnt, bool *whole)
{
	__u64 at;

	a->dentry = (__u64)dentry;
	a->mnt = (__u64)mnt;
	*whole = path_walk(number);
	at = a->path_at;
	if (at >= PATH_MAX) { /* nothing walked: this is the root itself */
		a->path[HEADROOM + PATH_MAX - 1] = '/';
		at = PATH_MAX - 1;
	}
	return at & (PATH_MAX - 1);
}

/* Copies the path of (dentry, mnt) to a place with room for PATH_MAX; returns its length. */
static __always_inline __u64 path_put(struct area *a, int number, void *to, struct dentry *dentry,
				      struct vfsmount *mnt, bool *whole)
{
	__u64 at = path_find(a, number, dentry, mnt, whole), len = PATH_MAX - at;

	bpf_probe_read_kernel(to, len, &a->path[HEADROOM + at]);
	return len;
}

/* Copies a string of the caller's to a place with room for max; returns its length without NUL. */
static __always_inline __u64 string_put(void *to, __u32 max, __u64 from)
{
	long len = bpf_probe_read_user_str(to, max, (void *)from);

	return len > 0 ? len - 1 : 0;
}
