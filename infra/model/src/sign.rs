//! Secrets: API keys and device tokens. Pure functions; randomness and time come in.

use aws_lc_rs::{constant_time, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{AppId, DeviceId, KeyId, Timestamp};

/// Fewest characters of a device secret: 256 bits in base64url.
pub const DEVICE_SECRET_MIN_CHARS: usize = 32;

/// A secret of 256 random bits, in base64url.
pub fn secret(random: [u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(random)
}

/// SHA-256 of a secret: what is kept of it. The secret is random, so a slow hash would buy nothing.
pub fn digest(secret: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
    bytes
}

/// Whether `secret` is the one `digest` was made of, in constant time.
pub fn matches(secret: &str, kept: &[u8; 32]) -> bool {
    constant_time::verify_slices_are_equal(&digest(secret), kept).is_ok()
}

/// What a caller shows: `<key id>_<secret>`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The public half.
    pub id: KeyId,
    /// The secret half.
    pub secret: String,
}

impl ApiKey {
    /// Splits a bearer token at its third underscore; `None` when it has not the form of a key.
    pub fn parse(token: &str) -> Option<Self> {
        let mut parts = token.splitn(4, '_');
        let (ak, env, ulid) = (parts.next()?, parts.next()?, parts.next()?);
        let secret = parts.next().filter(|secret| !secret.is_empty())?;
        Some(Self { id: format!("{ak}_{env}_{ulid}").parse().ok()?, secret: secret.to_owned() })
    }

    /// The whole token, to be shown once.
    pub fn token(&self) -> String {
        format!("{}_{}", self.id, self.secret)
    }
}

/// Why a device token is refused. Devices are not told which.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidToken {
    /// Not a JWT signed by this app.
    #[error("not signed by this app")]
    Forged,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// For another device or app.
    #[error("made for another device or app")]
    Misused,
}

/// The claims of a device token, a JWT with `alg: HS256` and `kid` = app id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceToken {
    /// The device; the MQTT client id must equal it.
    pub sub: DeviceId,
    /// Its app.
    pub app: AppId,
    /// Generation: revoking raises the device's.
    #[serde(rename = "gen")]
    pub generation: u32,
    /// Unix seconds at which it ends.
    pub exp: u64,
    /// The environment a first connection registers the device in; `live` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<crate::Env>,
}

impl DeviceToken {
    /// Signs the claims with the app's device secret.
    pub fn sign(&self, secret: &str) -> String {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(self.app.to_string());
        #[expect(clippy::expect_used, reason = "plain claims always serialise and HMAC takes any key")]
        jsonwebtoken::encode(&header, self, &EncodingKey::from_secret(secret.as_bytes())).expect("HS256 cannot fail")
    }

    /// Which device of which app a token says it is for. Anybody can say so: [`verify`](Self::verify) tells.
    pub fn claimed(token: &str) -> Option<(AppId, DeviceId)> {
        let claims = jsonwebtoken::dangerous::insecure_decode_claims::<Self>(token).ok()?;
        Some((claims.app, claims.sub))
    }

    /// Checks a token shown by a device that calls itself `device` of `app`. The algorithm is the app's, never the
    /// token's own.
    ///
    /// # Errors
    /// Which [`InvalidToken`] it is.
    pub fn verify(
        token: &str,
        secret: &str,
        app: &AppId,
        device: &DeviceId,
        now: Timestamp,
    ) -> Result<Self, InvalidToken> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false; // it would read the clock; checked below against `now`
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp", "sub"]);
        let key = DecodingKey::from_secret(secret.as_bytes());
        let claims = jsonwebtoken::decode::<Self>(token, &key, &validation).map_err(|_| InvalidToken::Forged)?.claims;
        if claims.exp <= now.as_millis() / 1_000 {
            return Err(InvalidToken::Expired);
        }
        if claims.app != *app || claims.sub != *device {
            return Err(InvalidToken::Misused);
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "device-token-secret-of-demo-0123456789";
    /// The test vector of the API contract, made elsewhere.
    const VECTOR: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImRlbW8iLCJ0eXAiOiJKV1QifQ.eyJzdWIiOiJkZXYtMSIsImFwcCI6ImRlbW8iLCJnZW4iOjMsImV4cCI6MTc5NTMzNjIwMH0.38pY4ecJaMwwYWoPWcW1AwqEAw7UrhjAxG25_mxMYM0";

    fn check(token: &str, secret: &str, app: &str, device: &str, secs: u64) -> Result<DeviceToken, InvalidToken> {
        let now = Timestamp::from_millis(secs * 1_000);
        DeviceToken::verify(token, secret, &app.parse().unwrap(), &device.parse().unwrap(), now)
    }

    #[test]
    fn the_contracts_token_is_taken_and_nothing_near_it() {
        let claims = check(VECTOR, SECRET, "demo", "dev-1", 1_795_336_199).unwrap();
        assert_eq!((claims.generation, claims.exp), (3, 1_795_336_200));
        assert_eq!(check(VECTOR, SECRET, "demo", "dev-1", 1_795_336_200), Err(InvalidToken::Expired));
        assert_eq!(check(VECTOR, SECRET, "demo", "dev-2", 0), Err(InvalidToken::Misused));
        assert_eq!(check(VECTOR, SECRET, "other", "dev-1", 0), Err(InvalidToken::Misused));
        assert_eq!(
            check(VECTOR, "another-secret-of-demo-0123456789-xx", "demo", "dev-1", 0),
            Err(InvalidToken::Forged)
        );
        assert_eq!(check(&VECTOR.replace('3', "4"), SECRET, "demo", "dev-1", 0), Err(InvalidToken::Forged));
        let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJkZXYtMSIsImFwcCI6ImRlbW8iLCJnZW4iOjMsImV4cCI6MTc5NTMzNjIwMH0.";
        assert_eq!(check(none, SECRET, "demo", "dev-1", 0), Err(InvalidToken::Forged));
        assert_eq!(check(&claims.sign(SECRET), SECRET, "demo", "dev-1", 0), Ok(claims));
    }

    #[test]
    fn a_key_splits_at_its_third_underscore() {
        let token = "ak_test_01JD7Q2Z4M8V6T3K5N9R0WXYEC_fJ2c_0dVt";
        let key = ApiKey::parse(token).unwrap();
        assert_eq!((key.secret.as_str(), key.token().as_str()), ("fJ2c_0dVt", token));
        assert!(matches(&key.secret, &digest("fJ2c_0dVt")) && !matches("fJ2c_0dVu", &digest("fJ2c_0dVt")));
        for bad in ["", "ak_test_01JD7Q2Z4M8V6T3K5N9R0WXYEC", "ak_test_01JD7Q2Z4M8V6T3K5N9R0WXYEC_", "sk_a_b_c"] {
            assert!(ApiKey::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_digest_is_sha_256() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(hex::encode(digest("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
