//! Tokens of registries, fetched here for a daemon, so that the daemon never sees the password
//! (docs/decisions/0018-registry-tokens.md).
//!
//! A daemon keeps the tokens that it gets, for later builds of the same client. What makes it the same is a key: it gets the
//! public half with the first token, and later has a number of its own signed. The key depends on the daemon (its salt), on a
//! secret of this user and on the credential: who has another credential for a registry, or none, must not get by with
//! tokens that were given for this one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use super::seeds::{Seed, Seeds};
use crate::cancel::Cancel;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::registry::client::{Client, Grant};
use crate::request::{Credential, Credentials};

/// Whatever the key is made of must not be mistaken for something else that is derived from the same secret.
const PURPOSE: &[u8] = b"cooper token authority 1";

/// The client's side of a daemon's tokens.
pub(super) struct Tokens {
    environment: Environment,
    seeds: Seeds,
    credentials: Arc<Remembered>,
    /// Made when the first token is wanted.
    client: OnceCell<Client>,
}

impl Tokens {
    /// Fetches with `credentials`, by the rules for registries that this environment has.
    pub(super) fn new(environment: &Environment, credentials: Arc<dyn Credentials>) -> Self {
        Self {
            environment: environment.clone(),
            seeds: Seeds::of_user(environment),
            credentials: Arc::new(Remembered { inner: credentials, known: Mutex::default() }),
            client: OnceCell::new(),
        }
    }

    /// The public key by which a daemon knows us at a registry. Fails as `Credentials` do.
    pub(super) async fn public_key(&self, registry: &str, salt: &[u8]) -> Result<Vec<u8>> {
        Ok(self.key(registry, salt).await?.public_key().as_ref().to_vec())
    }

    /// A signature of `payload`, and the payload after it, as `NaCl`'s `crypto_sign` has them. Fails as `Credentials` do.
    pub(super) async fn sign(&self, registry: &str, salt: &[u8], payload: &[u8]) -> Result<Vec<u8>> {
        let signature = self.key(registry, salt).await?.sign(payload);
        Ok([signature.as_ref(), payload].concat())
    }

    /// A token for what a registry demanded of the daemon. Fails as [`Client::token`] does, and with `DaemonConfig`.
    pub(super) async fn fetch(&self, registry: &str, realm: &str, service: &str, scopes: &[String]) -> Result<Grant> {
        let credentials = Arc::clone(&self.credentials) as Arc<dyn Credentials>;
        // Every call ends with the session, so there is nothing else to watch.
        let client = async { Client::new(&self.environment, credentials, Cancel::new()) };
        self.client.get_or_try_init(|| client).await?.token(registry, realm, service, scopes).await
    }

    async fn key(&self, registry: &str, salt: &[u8]) -> Result<Ed25519KeyPair> {
        let credential = self.credentials.get(registry, false).await?;
        let (seeds, name) = (self.seeds.clone(), registry.to_owned());
        let seed = tokio::task::spawn_blocking(move || seeds.get(&name)).await;
        let seed = seed.unwrap_or_else(|error| Err(Error::internal(error.to_string())))?;
        derive(&seed, salt, credential.as_ref())
    }
}

fn derive(seed: &Seed, salt: &[u8], credential: Option<&Credential>) -> Result<Ed25519KeyPair> {
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, seed.expose()));
    for part in [PURPOSE, salt, &fingerprint(credential)] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    Ed25519KeyPair::from_seed_unchecked(mac.sign().as_ref()).map_err(|_| Error::internal("a key cannot be made"))
}

/// Differs for credentials that differ.
fn fingerprint(credential: Option<&Credential>) -> Vec<u8> {
    let Some(credential) = credential else { return Vec::new() };
    let identity = credential.identity_token.as_ref().map(|token| token.expose().as_str());
    let mut hash = Sha256::new();
    for part in [credential.username.as_str(), credential.password.expose(), identity.unwrap_or_default()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().to_vec()
}

/// Credentials that are asked for once in a build, unless they were refused: those of some helpers differ each time.
struct Remembered {
    inner: Arc<dyn Credentials>,
    known: Mutex<HashMap<String, Option<Credential>>>,
}

#[async_trait]
impl Credentials for Remembered {
    async fn get(&self, registry: &str, refresh: bool) -> Result<Option<Credential>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(registry).cloned();
        if let (Some(known), false) = (known, refresh) {
            return Ok(known);
        }
        let found = self.inner.get(registry, refresh).await?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(registry.to_owned(), found.clone());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;
    use crate::secret::Secret;

    fn credential(username: &str, password: &str) -> Credential {
        Credential { username: username.into(), password: Secret::new(password.into()), identity_token: None }
    }

    #[test]
    fn the_key_is_what_the_derivation_gives() {
        // Python: hmac.new(bytes(range(32)), frame(PURPOSE) + frame(b"salt") + frame(fingerprint), "sha256"), then the
        // public key of Ed25519 (cryptography) for that seed.
        let seed = Secret::new(std::array::from_fn(|number| u8::try_from(number).unwrap()));
        let public = |credential: Option<&Credential>| {
            hex::encode(derive(&seed, b"salt", credential).unwrap().public_key().as_ref())
        };
        assert_eq!(public(None), "b3e5e2310eaea401fd2cfb6084ee6a729b690a3eb413cbb684f062d838be35b1");
        assert_eq!(
            public(Some(&credential("me", "hunter2"))),
            "655a4df4fd220ef63db895a09c2a763a0c82802d4b34a515c344acd648fcb8e8"
        );
    }

    #[test]
    fn seeds_salts_and_credentials_make_keys_of_their_own() {
        let (one, other) = (Secret::new([1; 32]), Secret::new([2; 32]));
        let token = Credential { identity_token: Some(Secret::new("hunter2".into())), ..Credential::default() };
        let all = [
            derive(&one, b"a", None),
            derive(&other, b"a", None),
            derive(&one, b"b", None),
            derive(&one, b"a", Some(&credential("me", "hunter2"))),
            derive(&one, b"a", Some(&credential("m", "ehunter2"))),
            derive(&one, b"a", Some(&token)),
        ];
        let all: std::collections::BTreeSet<_> =
            all.into_iter().map(|key| key.unwrap().public_key().as_ref().to_vec()).collect();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn a_signature_stands_before_what_it_signs() {
        let key = derive(&Secret::new([1; 32]), b"a", None).unwrap();
        let signed = [key.sign(b"payload").as_ref(), b"payload"].concat();
        assert_eq!((signed.len(), &signed[64..]), (64 + 7, &b"payload"[..]));
        UnparsedPublicKey::new(&ED25519, key.public_key().as_ref()).verify(b"payload", &signed[..64]).unwrap();
    }
}
