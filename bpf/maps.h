/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Constants, state and maps of the programs. Above each map: who writes, who reads, what happens when it is full. */
#ifndef RINGTAP_MAPS_H
#define RINGTAP_MAPS_H

#include "abi.h"
#include "kernel.h"

/* Set by the loader before the programs are verified. */
volatile const __u32 self_tgid = 0;
volatile const __u32 shard_mask = 0;

/* Set by the loader, and again when the configuration changes. Not zero here, so that it has a section of its own. */
volatile __u32 wanted = 0xff;

/* Io vectors of a request of io_uring that are kept: the program may use their place for something else meanwhile. */
#define RT_KEPT_VECTORS 8

/* Why nothing of a connection is captured, if it is not 0. */
enum ignored { IGNORED_UNWANTED = 1, IGNORED_GOVERNED = 2 };

enum protocol { PROTOCOL_UNKNOWN = 0, PROTOCOL_CLEAR = 1, PROTOCOL_TLS = 2 };

struct connection {
	__u64 id;
	__u64 offset[2]; /* next offset of the socket's streams, by direction */
	__u64 tls_offset[2];
	__u64 ssl;       /* TLS object that is bound to the socket */
	__u32 seq[2];    /* TCP sequence number at `offset` */
	__u32 tgid;
	__u8 ignored;    /* enum ignored */
	__u8 announced;
	__u8 late;
	__u8 protocol;
	struct rt_endpoints ends;
	__u8 datagrams;
	__u8 greeted;    /* ciphertext was sent outside of any TLS call */
	__u16 record;    /* length of the TLS record that was received last, if it came whole and alone; else 0 */
	__u32 consumed;  /* plaintext that was read of it */
	__u16 requests[2]; /* of io_uring that are under way, by direction */
};

/* A Unix socket that speaks HTTP. Nothing tells when it ends. */
struct unix_connection {
	struct connection c;
	__u64 inode;   /* another one at the same address is another socket */
	__u64 used_ns;
};

/* A request of io_uring on a socket, as it was when it was handed in. */
struct ring_request {
	__u64 sk;
	__u64 user_data;
	__u64 buffer;  /* of one that lets the kernel choose: whatever stands in its place */
	__u32 how;
	__u32 vectors; /* how many the request has, of which the first lie in `kept` */
	__u8 opcode;
	__u8 counted;  /* among the connection's `requests` */
	__u8 many;     /* brings one completion after another */
	__u8 selects;  /* lets the kernel choose a buffer */
	__u8 pad[4];
	struct user_iovec kept[RT_KEPT_VECTORS];
};

/* A request that brings many completions, by what those say of it. */
struct ring_source {
	__u64 ring;
	__u64 user_data;
};

struct tls_key {
	__u64 ssl;
	__u64 tgid;
};

struct tls_object {
	__u64 sk;
	__u64 conn; /* 0: no socket is known */
	__u64 unattributed; /* the made-up id, once one was needed */
	__u64 offset[2];
	__u8 ignored;
	__u8 inferred;
	__u8 verified; /* plaintext had the length that the inferred socket's records have */
	__u8 doubted;  /* its hints contradict each other */
	__u8 late;
	__u8 pad[3];
};

struct tls_call {
	__u64 ssl;
	__u64 buffer;   /* 0: the bytes come from a file */
	__u64 count_at; /* where the function leaves its byte count; 0: it returns it */
	__u64 stack;    /* 0: the call has returned */
	__u64 room; /* bytes that the call was given */
	__u8 direction;
	__u8 payload;   /* 0: a handshake, made only to learn the socket */
	__u8 library;   /* enum rt_library */
	__u8 mixed;     /* of more than one object since the thread last sent ciphertext by itself */
	__u32 written;  /* plaintext since then */
};

/* A call of crypto/tls. Its goroutine goes from thread to thread, and its stack from place to place. */
struct go_call {
	struct tls_call call; /* `stack` is the depth below the stack's end, which no move changes */
	__u64 stack_start;
	__u64 stack_end;
};

struct socket_ref {
	__u64 sk;
	__u64 conn;
};

struct received {
	struct socket_ref socket;
	__u64 mixed; /* another one came before it, and no TLS call between */
};

struct listener {
	__u16 port;
	__u16 family;
};

/* One a shard. Written by all programs, read by the shard's reader. Full: the record is dropped and counted. */
struct shard_ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, RT_SHARDS_MAX);
	__type(key, __u32);
	__array(values, struct shard_ring);
} rings SEC(".maps");

/* One word a shard. The reader sets it before it sleeps; the program that clears it wakes the reader. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, RT_SHARDS_MAX);
	__type(key, __u32);
	__type(value, __u64);
} wake SEC(".maps");

/* Process events for the prober. Full: dropped and counted in `control_lost`; the prober then rescans. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} control SEC(".maps");

/* By socket address. Written and read here, ends with the connection. Full: counted, the connection is not captured. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, __u64);
	__type(value, struct connection);
} connections SEC(".maps");

/* By socket address. Written and read here. Least recently used ones go: their end is then found by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct unix_connection);
} unix_sockets SEC(".maps");

/* By address of the request. Written and read here; least recently used ones go, and their bytes are gaps. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct ring_request);
} ring_requests SEC(".maps");

/* The address of the request; 0: more than one, so that none is known. As above. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct ring_source);
	__type(value, __u64);
} ring_sources SEC(".maps");

/* By TLS object of a process. Least recently used ones go; one that comes back starts a new stream. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct tls_key);
	__type(value, struct tls_object);
} tls_objects SEC(".maps");

/* The TLS call that a thread is in, or was in last. Full: counted, the call is not captured. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64);
	__type(value, struct tls_call);
} tls_calls SEC(".maps");

/*
 * The call that a thread makes inside of the one above: of a program that answers what it has just read from within the
 * library's own callback (Node). Least recently used ones go.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct tls_call);
} inner_calls SEC(".maps");

/* By goroutine of a process: the call that it is in. Goroutines end unseen; least recently used ones go. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct tls_key);
	__type(value, struct go_call);
} go_calls SEC(".maps");

/* The TLS socket that a thread received on last, until the thread's next TLS call. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64);
	__type(value, struct received);
} last_received SEC(".maps");

/* By connection id. Written where a close found a full ring, read and emptied by user space. Full: counted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct rt_end);
} lost_ends SEC(".maps");

/* Written by user space. Absent: nothing is skipped. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct rt_stream);
	__type(value, __u64);
} skip_until SEC(".maps");

/* Written by user space on exec and by its governor, and here on fork: enum rt_exclude bits of a process. Absent: none. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u32);
} excluded SEC(".maps");

/* By process: bytes of UDP at port 443. Written here, read by user space; least recently used ones go, as old as they are. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} quic_bytes SEC(".maps");

/* By process. Written here, read by user space, which removes it when the process ends; least recently used ones go. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct rt_activity);
} activity SEC(".maps");

/* Files that were reported to user space; a file is looked at once. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct socket_ref); /* device, inode */
	__type(value, __u8);
} mapped_files SEC(".maps");

/*
 * Processes that were stopped, and when. Written here, emptied by whoever lets them go on: user space, or its guard.
 * Process 0 is no process: as long as it is in the map, processes are stopped that bring a file which was not looked at.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} held SEC(".maps");

/* Listening ports at the start, to tell servers' connections from clients'. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct listener);
	__type(value, __u8);
} listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rt_counters);
} counters SEC(".maps");

/* Not on the stack, of which there is little. */
static const __u32 first_key;

/* Atomic, since a probe's program can be preempted between load and store. */
#define COUNT(field, n) \
	do { \
		struct rt_counters *c_ = bpf_map_lookup_elem(&counters, &first_key); \
		if (c_) \
			__sync_fetch_and_add(&c_->field, (n)); \
	} while (0)

/* Set by the first call of crypto/tls: until then no system call is asked for its goroutine. */
volatile __u32 go_seen = 0;

/* What a process has moved so far; 0: the table is full. */
static __always_inline struct rt_activity *activity_of(__u32 tgid)
{
	static const struct rt_activity fresh;
	struct rt_activity *a = bpf_map_lookup_elem(&activity, &tgid);

	if (a)
		return a;
	bpf_map_update_elem(&activity, &tgid, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&activity, &tgid);
}

static __always_inline struct tls_call *open_call(void)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct tls_call *call = bpf_map_lookup_elem(&tls_calls, &thread);

	return call && call->stack ? call : 0;
}

static __always_inline __u32 exclusion_of(__u32 tgid)
{
	__u32 *mask = bpf_map_lookup_elem(&excluded, &tgid);

	return mask ? *mask : 0;
}

static __always_inline int is_excluded(__u32 tgid, __u32 bits)
{
	return exclusion_of(tgid) & bits;
}

#endif
