//! Shapes of well-known credentials, wherever they stand.

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};

/// Each begins with a literal, so that a search runs at the speed of a search for literals.
const SHAPES: [&str; 17] = [
    // JSON Web Tokens.
    r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?",
    // Access key ids of AWS.
    r"AKIA[0-9A-Z]{16}",
    r"ASIA[0-9A-Z]{16}",
    // GitHub, GitLab.
    r"gh[pousr]_[A-Za-z0-9]{30,}",
    r"github_pat_[A-Za-z0-9_]{22,}",
    r"glpat-[A-Za-z0-9_-]{20,}",
    // Slack.
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}",
    // Stripe.
    r"sk_(?:live|test)_[A-Za-z0-9]{16,}",
    r"rk_(?:live|test)_[A-Za-z0-9]{16,}",
    // Google.
    r"AIza[0-9A-Za-z_-]{35}",
    r"ya29\.[0-9A-Za-z_-]{20,}",
    // OpenAI, Anthropic and those that follow them.
    r"sk-[A-Za-z0-9_-]{20,}",
    // npm, PyPI, Hugging Face.
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-[A-Za-z0-9_-]{32,}",
    r"hf_[A-Za-z0-9]{30,}",
    // A bearer's token in running text.
    r"Bearer [A-Za-z0-9._~+/-]{16,}=*",
    // Private keys, also without their end.
    r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----(?:[A-Za-z0-9+/=\s\\:,-]*?-----END [A-Z ]{0,20}PRIVATE KEY-----|[A-Za-z0-9+/=\s\\:,-]*)",
];

/// Any of them.
pub(super) static KNOWN: LazyLock<Regex> = LazyLock::new(|| {
    let built = RegexBuilder::new(&SHAPES.join("|")).unicode(false).size_limit(8 << 20).build();
    built.expect("a test builds it")
});
