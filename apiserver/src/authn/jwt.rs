//! Compact JSON Web Tokens (RFC 7519) as the API server makes and reads them.
//!
//! What must not be here: what the claims mean.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::keys::{KeyError, PublicKey, SigningKey};

/// Clocks of two machines may differ by this much (seconds), as in go-jose.
pub const LEEWAY: i64 = 60;

#[derive(Serialize)]
struct HeaderOut<'a> {
    alg: &'a str,
    kid: &'a str,
}

#[derive(Deserialize)]
struct HeaderIn {
    #[serde(default)]
    alg: String,
    #[serde(default)]
    kid: String,
}

/// The registered claims that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Claims {
    pub iss: String,
    pub sub: String,
    pub aud: Audience,
    /// Seconds since 1970; a fraction is allowed.
    pub exp: Option<f64>,
    pub nbf: Option<f64>,
    pub iat: Option<f64>,
    pub jti: String,
}

/// `aud` is a string or a list of them.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(from = "AudienceForm")]
pub struct Audience(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum AudienceForm {
    One(String),
    Many(Vec<String>),
}

impl From<AudienceForm> for Audience {
    fn from(form: AudienceForm) -> Self {
        Audience(match form {
            AudienceForm::One(one) => vec![one],
            AudienceForm::Many(many) => many,
        })
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotValidYet,
    #[error("service account token is issued in the future")]
    IssuedInTheFuture,
}

impl Claims {
    /// `now` in seconds since 1970.
    pub fn valid_at(&self, now: i64) -> Result<(), TimeError> {
        if self.nbf.is_some_and(|t| now + LEEWAY < t as i64) {
            return Err(TimeError::NotValidYet);
        }
        if self.exp.is_some_and(|t| now - LEEWAY > t as i64) {
            return Err(TimeError::Expired);
        }
        if self.iat.is_some_and(|t| now + LEEWAY < t as i64) {
            return Err(TimeError::IssuedInTheFuture);
        }
        Ok(())
    }
}

/// A token taken apart, not verified: nothing in it may be believed yet.
pub struct Unverified<'a> {
    pub key_id: String,
    algorithm: String,
    /// Decoded JSON.
    payload: Vec<u8>,
    message: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// `None` when this is no compact JWT.
    pub fn parse(token: &'a str) -> Option<Self> {
        let mut parts = token.split('.');
        let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let HeaderIn { alg, kid } =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        Some(Self {
            key_id: kid,
            algorithm: alg,
            payload: URL_SAFE_NO_PAD.decode(payload).ok()?,
            message: &token.as_bytes()[..header.len() + 1 + payload.len()],
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    pub fn claimed_issuer(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Issuer {
            #[serde(default)]
            iss: String,
        }
        let Issuer { iss } = serde_json::from_slice(&self.payload).ok()?;
        Some(iss)
    }

    pub fn signed_by(&self, key: &PublicKey) -> bool {
        // The key says which algorithm it is for; a token that claims another one is forged.
        self.algorithm == key.algorithm.name() && key.verifies(self.message, &self.signature)
    }

    /// Reads the payload; call it after [`Self::signed_by`].
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.payload)
    }
}

/// Makes a token of claims.
pub fn sign(key: &SigningKey, claims: &impl Serialize) -> Result<String, KeyError> {
    let encode = |json: Result<Vec<u8>, serde_json::Error>| {
        json.map(|json| URL_SAFE_NO_PAD.encode(json))
            .map_err(|e| KeyError::Sign(e.to_string()))
    };
    let mut token = encode(serde_json::to_vec(&HeaderOut {
        alg: key.public.algorithm.name(),
        kid: &key.public.id,
    }))?;
    token.push('.');
    token.push_str(&encode(serde_json::to_vec(claims))?);
    let signature = key.sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}
