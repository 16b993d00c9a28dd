/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The border between the programs and user space: every structure that crosses it and nothing else.
 * `bpf/abi.rs` is the Rust view of this file; both assert the same sizes and offsets, so that a change
 * on one side does not compile on the other.
 */
#ifndef RINGTAP_ABI_H
#define RINGTAP_ABI_H

#include <linux/types.h>

#define RT_ASSERT_SIZE(type, size) _Static_assert(sizeof(type) == (size), #type " changed its size")
#define RT_ASSERT_AT(type, field, at) \
	_Static_assert(__builtin_offsetof(type, field) == (at), #type "." #field " moved")

/* Payload bytes of one record at most; a longer call is cut into several. */
#define RT_CHUNK_MAX 16384
/* Pieces (chunks or io vectors) of one call at most; what is beyond is a counted gap. */
#define RT_PIECES_MAX 256
/* Bytes at the start of a TLS connection that are captured in each direction, for the hello messages. */
#define RT_HELLO_MAX 4096
/* Rings at most, and so shards at most. */
#define RT_SHARDS_MAX 64
#define RT_NAME_MAX 128

enum rt_kind {
	RT_PAYLOAD = 1, /* bytes of a stream follow, or are missing for the reason in `flags` */
	RT_OPEN = 2,    /* struct rt_endpoints follows, for a Unix socket struct rt_unix_ends */
	RT_CLOSE = 3,   /* struct rt_totals follows */
	RT_EXEC = 4,    /* path of the program follows, as it was given to execve */
	RT_EXIT = 5,    /* the last thread of a process has ended */
	RT_MAP = 6,     /* struct rt_file follows: a file was mapped for execution */
	/* From 64 on: user space's own, in recordings. */
};

enum rt_direction { RT_SENT = 0, RT_RECEIVED = 1 };
enum rt_layer { RT_SOCKET = 0, RT_TLS = 1 };
enum rt_role { RT_UNKNOWN = 0, RT_CLIENT = 1, RT_SERVER = 2 };

enum rt_flag {
	RT_F_INFERRED = 1 << 0,     /* the socket was inferred from what the thread sent or received */
	RT_F_UNATTRIBUTED = 1 << 1, /* no socket is known; `conn` is made up from the TLS object */
	RT_F_FAULT = 1 << 2,        /* the bytes could not be read */
	RT_F_SENDFILE = 1 << 3,     /* the bytes went from a file to the socket without passing user space */
	RT_F_LATE = 1 << 4,         /* the connection is older than the agent */
	RT_F_DISCARDED = 1 << 5,    /* the program let the kernel discard the bytes (MSG_TRUNC) */
	RT_F_REDACTED = 1 << 6,     /* left out of a recording; set by user space only */
	RT_F_UNCAPTURED = 1 << 7,   /* a capture file lacks them; set by user space only */
	RT_F_DATAGRAM = 1 << 8,     /* a datagram to or from a name server, not bytes of a stream */
	RT_F_HELD = 1 << 9,         /* the process was stopped, and waits to be let go */
	RT_F_VERIFIED = 1 << 10,    /* the inferred socket's records have the length of the plaintext */
	RT_F_GOVERNED = 1 << 11,    /* of a close: the connection was left out before, since probes cost its process too much */
	/* Not with io vectors, whose number takes these bits while a call is looked at (META_COUNT_SHIFT). */
	RT_F_SPLICED = 1 << 12,     /* the bytes went through a pipe without passing user space */
};

/* Who handed out plaintext; in the highest byte of `flags`. */
#define RT_LIBRARY_SHIFT 24
enum rt_library {
	RT_OPENSSL = 0, /* and what has its functions: BoringSSL, AWS-LC, LibreSSL */
	RT_GNUTLS = 1,
	RT_NSS = 2,
	RT_MBEDTLS = 3,
	RT_WOLFSSL = 4,
	RT_S2N = 5,
	RT_GO = 6, /* crypto/tls */
	RT_RUSTLS = 7,
};

/* Head of every record. */
struct rt_record {
	__u64 time_ns; /* boot time when the call had ended */
	__u64 conn;    /* socket cookie, or an id of our own with a high bit set */
	__u64 offset;  /* of the first byte in its stream */
	__u32 len;     /* bytes of the stream that the record stands for */
	__u32 size;    /* bytes that follow this head */
	__u32 tgid;
	__u32 tid;
	__u8 kind;
	__u8 direction;
	__u8 layer;
	__u8 pad;
	__u32 flags;
};
RT_ASSERT_SIZE(struct rt_record, 48);
RT_ASSERT_AT(struct rt_record, offset, 16);
RT_ASSERT_AT(struct rt_record, tgid, 32);
RT_ASSERT_AT(struct rt_record, flags, 44);

/* Both ends of a connection, addresses as in network order, IPv4 in the first four bytes. */
struct rt_endpoints {
	__u16 family;
	__u8 role;
	__u8 pad;
	__u16 local_port;
	__u16 remote_port;
	__u8 local[16];
	__u8 remote[16];
};
RT_ASSERT_SIZE(struct rt_endpoints, 40);
RT_ASSERT_AT(struct rt_endpoints, local, 8);

/* Ends of a Unix socket: without addresses, and the path that the server is bound to, '@' first for an abstract one. */
struct rt_unix_ends {
	struct rt_endpoints ends;
	char path[112];
};
RT_ASSERT_SIZE(struct rt_unix_ends, 152);

/* Lengths of the streams of a connection when it closed, by direction. */
struct rt_totals {
	__u64 socket[2];
	__u64 tls[2];
};
RT_ASSERT_SIZE(struct rt_totals, 32);

/* The end of a connection whose RT_CLOSE found a full ring. */
struct rt_end {
	__u64 time_ns;
	struct rt_totals totals;
};
RT_ASSERT_SIZE(struct rt_end, 40);

struct rt_file {
	__u64 device; /* and the generation of the inode, in the upper half */
	__u64 inode;
	char name[RT_NAME_MAX];
};
RT_ASSERT_SIZE(struct rt_file, 144);

/* Index into `skip`: payload of that stream below the offset is counted and not copied. */
struct rt_stream {
	__u64 conn;
	__u32 layer;
	__u32 direction;
};
RT_ASSERT_SIZE(struct rt_stream, 16);

/* What a process has moved since it began; whatever is excluded is not counted. */
struct rt_activity {
	__u64 tls_bytes;    /* TLS on its sockets, handshakes and all, of both directions */
	__u64 clear_bytes;  /* what probes saw of it in the clear */
	__u64 socket_bytes; /* on sockets that do not speak TLS */
	__u64 unseen_bytes; /* on sockets, by ways that are not observed; its part of `unseen_bytes` below */
	__u64 calls;        /* of TLS functions, that a probe stopped when they returned */
	__u64 libraries;    /* a bit for each enum rt_library that handed out plaintext */
	__u64 scattered;    /* ciphertext of one connection that a thread received, and then decrypted another's */
	__u64 relayed;      /* ciphertext of one connection that a thread sent after it had encrypted another's, or none */
	__u64 io_calls;     /* system calls that moved bytes on sockets */
};
RT_ASSERT_SIZE(struct rt_activity, 72);

/*
 * What a process is excluded from (the `only` list of a custom filter); RT_X_ALL: everything. The bits above are the
 * governor's, whose probes cost the process too much.
 */
enum rt_exclude {
	RT_X_DATA = 1 << 0,
	RT_X_DNS = 1 << 1,
	RT_X_TLS = 1 << 2,
	RT_X_HTTP = 1 << 3,
	RT_X_ALL = 0xff,
	RT_X_SAMPLED = 1 << 8, /* all but one connection in RT_SAMPLE */
	RT_X_OFF = 1 << 9,     /* all connections */
};
/* A power of two. */
#define RT_SAMPLE 8

/* Which connections are wanted; bits of the constant `wanted`. */
enum rt_wanted {
	RT_W_INGRESS = 1 << 0,
	RT_W_EGRESS_INTERNAL = 1 << 1,
	RT_W_EGRESS_EXTERNAL = 1 << 2,
	RT_W_LOOPBACK = 1 << 3,
	RT_W_DNS = 1 << 4, /* connections to name servers; what they answer is wanted always */
};

/*
 * One counter a cause, summed over CPUs by the reader. In bytes of payload:
 * seen = captured + ring_full + fault + call_limit + sendfile + spliced + discarded + ciphertext + skipped
 * and, in records, reserved = what the rings' readers get.
 */
#define RT_COUNTERS(X) \
	X(seen_bytes) \
	X(captured_bytes) \
	X(captured_records) \
	X(ring_full_bytes) \
	X(ring_full_records) \
	X(fault_bytes) \
	X(call_limit_bytes) \
	X(sendfile_bytes) \
	X(discarded_bytes) \
	X(ciphertext_bytes) \
	X(skipped_bytes) \
	X(control_lost) \
	X(connections_full) \
	X(calls_full) \
	X(tls_objects_full) \
	X(after_close_bytes) \
	X(compat_calls) \
	X(unattributed_bytes) \
	X(counts_unread) \
	X(ends_lost) \
	X(unseen_bytes) \
	X(governed_connections) \
	X(spliced_bytes)

struct rt_counters {
#define RT_COUNTER_FIELD(name) __u64 name;
	RT_COUNTERS(RT_COUNTER_FIELD)
#undef RT_COUNTER_FIELD
};
RT_ASSERT_SIZE(struct rt_counters, 23 * 8);

#endif
