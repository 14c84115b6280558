//! Names of objects: what they may look like, and names and ids that the server makes.

use ring::rand::{SecureRandom, SystemRandom};

use super::failure::{Cause, Failure};
use super::kinds::Kind;

/// Letters of generated names (`k8s.io/apimachinery/pkg/util/rand`): no vowels, nothing that looks like another.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Fails unless the name is one for this kind.
pub fn check(kind: &Kind, name: &str) -> Result<(), Failure> {
    let sound = if kind.group == "rbac.authorization.k8s.io" {
        // Names of roles are path segments, nothing else (`system:node`).
        !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%'])
    } else if kind.is("", "namespaces") || kind.is("", "services") {
        name.len() <= 63 && is_label(name)
    } else {
        name.len() <= 253 && name.split('.').all(is_label)
    };
    if sound {
        return Ok(());
    }
    let cause = Cause::invalid("metadata.name", format!("{name:?}: a lowercase RFC 1123 name is expected"));
    Err(Failure::invalid(&kind.kind, name, vec![cause]))
}

/// A label of a DNS name, lower case (RFC 1123).
pub fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A name that begins so.
pub fn generate(prefix: &str) -> String {
    // 63 less the random part, as the API server shortens.
    let prefix: String = prefix.chars().take(58).collect();
    let letter = |byte: u8| char::from(LETTERS[usize::from(byte) % LETTERS.len()]);
    let end: String = random::<5>().into_iter().map(letter).collect();
    format!("{prefix}{end}")
}

/// A random UUID (version 4).
pub fn uid() -> String {
    let mut bytes = random::<16>();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let n = u128::from_be_bytes(bytes);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        n >> 96,
        (n >> 80) & 0xffff,
        (n >> 64) & 0xffff,
        (n >> 48) & 0xffff,
        n & 0xffff_ffff_ffff
    )
}

/// Random text that is hard to guess.
pub fn token() -> String {
    random::<16>().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_names_are_names() {
        assert!(is_label(&generate("web-")));
        assert_ne!(generate("web-"), generate("web-"));
        let uid = uid();
        assert_eq!((uid.len(), uid.as_bytes()[14], uid.matches('-').count()), (36, b'4', 4), "{uid}");
        for wrong in ["", "-a", "a-", "A", "a_b"] {
            assert!(!is_label(wrong), "{wrong}");
        }
    }
}
