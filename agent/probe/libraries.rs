//! The TLS libraries: one entry each. `docs/add-a-tls-library.md` shows how another one is added.

use std::collections::HashSet;

/// A library, as its functions' names show it.
#[derive(Debug)]
pub struct Library {
    /// As it is reported.
    pub name: &'static str,
    /// How the names of its shared objects begin: those in the standard folders are probed before anybody maps them.
    pub files: &'static [&'static str],
    /// A file that defines all of these has the library.
    pub needs: &'static [&'static str],
    /// Where its probes go.
    pub groups: &'static [Group],
}

/// Functions that do one thing.
#[derive(Debug)]
pub struct Group {
    /// Symbol, and the program in the capture object that follows a call of it. Those that the file lacks are left out.
    pub functions: &'static [(&'static str, &'static str)],
    /// Whether the return is of interest too.
    pub returns: bool,
    /// What the functions call inside of the library, to be probed instead where that is cheaper and certain.
    pub inside: &'static [Inside],
}

/// A function without a symbol, which all functions of a group call.
#[derive(Debug)]
pub struct Inside {
    /// Only in files that define this as well.
    pub needs: Option<&'static str>,
    /// As the log calls it.
    pub name: &'static str,
    /// The program for it.
    pub program: &'static str,
}

const fn calls(functions: &'static [(&'static str, &'static str)]) -> Group {
    Group { functions, returns: true, inside: &[] }
}

/// Where an object ends: its address can become another one's.
const fn ends(functions: &'static [(&'static str, &'static str)]) -> Group {
    Group { functions, returns: false, inside: &[] }
}

const fn inside(needs: Option<&'static str>, name: &'static str, program: &'static str) -> Inside {
    Inside { needs, name, program }
}

/// All of them.
pub const LIBRARIES: &[Library] = &[
    // OpenSSL from 1.1.0 on, LibreSSL, BoringSSL, AWS-LC. Early data passes through the same functions.
    Library {
        name: "openssl",
        files: &["libssl.so"],
        needs: &["SSL_read", "SSL_write"],
        groups: &[
            Group {
                functions: &[("SSL_read", "handle_read"), ("SSL_read_ex", "handle_read_ex")],
                returns: true,
                inside: &[inside(None, "ssl_read_internal", "handle_read_ex")],
            },
            Group {
                functions: &[
                    ("SSL_write", "handle_write"),
                    ("SSL_write_ex", "handle_write_ex"),
                    ("SSL_write_ex2", "handle_write_ex2"),
                ],
                returns: true,
                inside: &[
                    inside(Some("SSL_write_ex2"), "ssl_write_internal", "handle_write_ex2"),
                    inside(None, "ssl_write_internal", "handle_write_ex"),
                ],
            },
            calls(&[("SSL_sendfile", "handle_sendfile")]),
            calls(&[("SSL_do_handshake", HANDSHAKE)]),
            ends(&[("SSL_free", "handle_free")]),
        ],
    },
    Library {
        name: "gnutls",
        files: &["libgnutls.so"],
        needs: &["gnutls_record_recv", "gnutls_record_send"],
        groups: &[
            calls(&[
                ("gnutls_record_recv", "handle_gnutls_read"),
                ("gnutls_record_recv_seq", "handle_gnutls_read"),
                ("gnutls_record_recv_early_data", "handle_gnutls_read"),
            ]),
            // What these call inside is a call in a call, and not looked at.
            calls(&[
                ("gnutls_record_send", "handle_gnutls_write"),
                ("gnutls_record_send2", "handle_gnutls_write"),
                ("gnutls_record_send_early_data", "handle_gnutls_write"),
            ]),
            calls(&[("gnutls_handshake", HANDSHAKE)]),
            ends(&[("gnutls_deinit", "handle_free")]),
        ],
    },
    // NSS has no functions of its own for data: NSPR's, on a layer above a socket.
    Library {
        name: "nss",
        files: &["libnspr4.so"],
        needs: &["PR_Read", "PR_Write", "PR_Recv", "PR_Send"],
        groups: &[
            calls(&[("PR_Read", "handle_nspr_read"), ("PR_Recv", "handle_nspr_read")]),
            calls(&[("PR_Write", "handle_nspr_write"), ("PR_Send", "handle_nspr_write")]),
            ends(&[("PR_Close", "handle_free")]),
        ],
    },
    Library {
        name: "mbedtls",
        files: &["libmbedtls.so"],
        needs: &["mbedtls_ssl_read", "mbedtls_ssl_write"],
        groups: &[
            calls(&[("mbedtls_ssl_read", "handle_mbedtls_read")]),
            calls(&[("mbedtls_ssl_write", "handle_mbedtls_write")]),
            calls(&[("mbedtls_ssl_handshake", HANDSHAKE), ("mbedtls_ssl_handshake_step", HANDSHAKE)]),
            ends(&[("mbedtls_ssl_free", "handle_free"), ("mbedtls_ssl_session_reset", "handle_free")]),
        ],
    },
    Library {
        name: "wolfssl",
        files: &["libwolfssl.so"],
        needs: &["wolfSSL_read", "wolfSSL_write"],
        groups: &[
            calls(&[("wolfSSL_read", "handle_wolfssl_read"), ("wolfSSL_recv", "handle_wolfssl_read")]),
            calls(&[("wolfSSL_write", "handle_wolfssl_write"), ("wolfSSL_send", "handle_wolfssl_write")]),
            calls(&[("wolfSSL_negotiate", HANDSHAKE), ("wolfSSL_connect", HANDSHAKE), ("wolfSSL_accept", HANDSHAKE)]),
            ends(&[("wolfSSL_free", "handle_free"), ("wolfSSL_clear", "handle_free")]),
        ],
    },
    Library {
        name: "s2n",
        files: &["libs2n.so"],
        needs: &["s2n_recv", "s2n_send"],
        groups: &[
            calls(&[("s2n_recv", "handle_s2n_read")]),
            calls(&[("s2n_send", "handle_s2n_write")]),
            calls(&[("s2n_negotiate", HANDSHAKE)]),
            ends(&[("s2n_connection_free", "handle_free"), ("s2n_connection_wipe", "handle_free")]),
        ],
    },
];

/// The program for returns, of whatever function.
pub const RETURN: &str = "handle_return";
/// The program for handshakes, of whatever library but Go's.
pub const HANDSHAKE: &str = "handle_handshake";

/// Whether a program asks for what its file's probes are told.
pub fn asks_for_cookie(program: &str) -> bool {
    super::rustls::programs().any(|other| other == program)
}

/// Names of all functions that a probe may go to.
pub fn functions() -> HashSet<&'static str> {
    LIBRARIES
        .iter()
        .flat_map(|library| library.groups)
        .flat_map(|group| group.functions)
        .map(|(name, _)| *name)
        .collect()
}

/// Programs that follow calls, each once.
pub fn programs() -> Vec<&'static str> {
    let groups = || LIBRARIES.iter().flat_map(|library| library.groups);
    let functions = groups().flat_map(|group| group.functions).map(|(_, program)| *program);
    let inside = groups().flat_map(|group| group.inside).map(|inside| inside.program);
    let mut all: Vec<&str> =
        functions.chain(inside).chain([RETURN]).chain(super::go::programs()).chain(super::rustls::programs()).collect();
    all.sort_unstable();
    all.dedup();
    all
}
