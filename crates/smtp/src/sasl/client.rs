//! The client's side of SASL. Text in and out is base 64 as it stands in the lines of RFC 4954.

use super::scram::{self, Keys, ServerFirst};
use super::{ChannelBinding, Mechanism, Password, SaslError, decode, encode};

/// One exchange: send [`Client::initial`] with AUTH, answer each 334 by [`Client::respond`], and ask
/// [`Client::finish`] when the server says 235.
#[derive(Debug)]
pub struct Client {
    mechanism: Mechanism,
    username: String,
    password: Password,
    binding: Option<ChannelBinding>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing was sent.
    Fresh,
    /// LOGIN: how many questions were answered.
    Asked(u8),
    /// SCRAM: the client-first message is out.
    First { gs2: String, bare: String, nonce: String },
    /// SCRAM: the proof is out.
    Proven { signature: [u8; 32] },
    /// Nothing more is to be said; a SCRAM server has proved itself.
    Done,
    /// The server's words made no sense or refused.
    Failed,
    /// A bearer token was refused: why is to be heard in the final reply.
    Refused,
}

/// The strongest mechanism among `offered` that can be used: SCRAM with channel binding before SCRAM; then, in TLS or
/// where `clear_is_fine`, PLAIN before LOGIN. Bearer tokens have [`choose_bearer`].
pub fn choose(offered: &[Mechanism], binding: bool, clear_is_fine: bool) -> Option<Mechanism> {
    [Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login].into_iter().find(
        |m| {
            let usable = match m {
                Mechanism::ScramSha256Plus => binding,
                Mechanism::ScramSha256 => true,
                _ => clear_is_fine,
            };
            usable && offered.contains(m)
        },
    )
}

/// The mechanism for a bearer token: that of the standard before the older one.
pub fn choose_bearer(offered: &[Mechanism]) -> Option<Mechanism> {
    [Mechanism::OauthBearer, Mechanism::XOauth2].into_iter().find(|m| offered.contains(m))
}

impl Client {
    /// An exchange by `mechanism`. `password` is the token for OAUTHBEARER and XOAUTH2. `binding` is what the TLS connection gives; it
    /// is used by SCRAM-SHA-256-PLUS.
    pub fn new(
        mechanism: Mechanism,
        username: impl Into<String>,
        password: Password,
        binding: Option<ChannelBinding>,
    ) -> Self {
        Self { mechanism, username: username.into(), password, binding, state: State::Fresh }
    }

    /// The mechanism.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The initial response to put behind `AUTH NAME `; none when the server speaks first (LOGIN).
    ///
    /// # Errors
    /// [`SaslError::Unusable`] when the mechanism needs channel binding or random bytes that are not there.
    pub fn initial(&mut self) -> Result<Option<String>, SaslError> {
        match self.mechanism {
            Mechanism::Plain => {
                self.state = State::Done;
                Ok(Some(encode(format!("\0{}\0{}", self.username, self.password.0).as_bytes())))
            }
            Mechanism::Login => {
                self.state = State::Asked(0);
                Ok(None)
            }
            Mechanism::XOauth2 => {
                self.state = State::Done;
                let text = format!("user={}\x01auth=Bearer {}\x01\x01", self.username, self.password.0);
                Ok(Some(encode(text.as_bytes())))
            }
            Mechanism::OauthBearer => {
                self.state = State::Done;
                let name = scram::escape_name(&self.username);
                let text = format!("n,a={name},\x01auth=Bearer {}\x01\x01", self.password.0);
                Ok(Some(encode(text.as_bytes())))
            }
            Mechanism::ScramSha256 => self.scram_first("n,,".into()),
            Mechanism::ScramSha256Plus => {
                let binding = self
                    .binding
                    .as_ref()
                    .ok_or(SaslError::Unusable("this connection has no channel binding"))?;
                let gs2 = format!("p={},,", binding.kind.name());
                self.scram_first(gs2)
            }
        }
    }

    fn scram_first(&mut self, gs2: String) -> Result<Option<String>, SaslError> {
        let nonce = scram::nonce().ok_or(SaslError::Unusable("the system gives no random bytes"))?;
        Ok(Some(self.scram_first_with(gs2, nonce)))
    }

    pub(super) fn scram_first_with(&mut self, gs2: String, nonce: String) -> String {
        let bare = format!("n={},r={nonce}", scram::escape_name(&self.username));
        let first = encode(format!("{gs2}{bare}").as_bytes());
        self.state = State::First { gs2, bare, nonce };
        first
    }

    /// The answer to a 334 with this text.
    ///
    /// # Errors
    /// The challenge makes no sense, refuses, or shows that the server does not know the password. Answer `*` and hang
    /// up. A bearer token's refusal is no error yet: the answer brings the final reply (RFC 7628 section 3.2.3).
    pub fn respond(&mut self, challenge: &str) -> Result<String, SaslError> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Asked(0) => {
                self.state = State::Asked(1);
                Ok(encode(self.username.as_bytes()))
            }
            State::Asked(1) => {
                self.state = State::Done;
                Ok(encode(self.password.0.as_bytes()))
            }
            State::First { gs2, bare, nonce } => self.scram_final(&gs2, &bare, &nonce, &text_of(challenge)?),
            State::Proven { signature } => {
                check_signature(&text_of(challenge)?, &signature)?;
                self.state = State::Done;
                Ok(String::new())
            }
            State::Done if self.mechanism == Mechanism::XOauth2 => {
                self.state = State::Refused;
                Ok(String::new())
            }
            State::Done if self.mechanism == Mechanism::OauthBearer => {
                self.state = State::Refused;
                Ok(encode(b"\x01"))
            }
            _ => Err(SaslError::Challenge("one more question than the mechanism has")),
        }
    }

    fn scram_final(
        &mut self,
        gs2: &str,
        bare: &str,
        nonce: &str,
        challenge: &str,
    ) -> Result<String, SaslError> {
        if let Some(error) = challenge.strip_prefix("e=") {
            return Err(SaslError::Refused(error.to_owned()));
        }
        let first = ServerFirst::parse(challenge).map_err(SaslError::Challenge)?;
        if first.nonce.len() <= nonce.len() || !first.nonce.starts_with(nonce) {
            return Err(SaslError::Challenge("its nonce does not extend ours"));
        }
        let mut bound = gs2.as_bytes().to_vec();
        if let (Mechanism::ScramSha256Plus, Some(binding)) = (self.mechanism, &self.binding) {
            bound.extend_from_slice(&binding.data);
        }
        let without_proof = format!("c={},r={}", encode(&bound), first.nonce);
        let auth_message = format!("{bare},{challenge},{without_proof}");
        let keys = Keys::derive(&self.password.0, &first.salt, first.iterations);
        let proof = keys.proof(&auth_message);
        self.state = State::Proven { signature: scram::server_signature(&keys.server, &auth_message) };
        Ok(encode(format!("{without_proof},p={}", encode(&proof)).as_bytes()))
    }

    /// Whether a 235 may be believed.
    ///
    /// # Errors
    /// [`SaslError::Impostor`] when a SCRAM server did not prove itself.
    pub fn finish(&self) -> Result<(), SaslError> {
        let scram = matches!(self.mechanism, Mechanism::ScramSha256 | Mechanism::ScramSha256Plus);
        if scram && !matches!(self.state, State::Done) { Err(SaslError::Impostor) } else { Ok(()) }
    }
}

fn text_of(challenge: &str) -> Result<String, SaslError> {
    let bytes = decode(challenge.trim()).ok_or(SaslError::Challenge("not base 64"))?;
    String::from_utf8(bytes).map_err(|_| SaslError::Challenge("not UTF-8"))
}

fn check_signature(message: &str, expected: &[u8; 32]) -> Result<(), SaslError> {
    if let Some(error) = message.strip_prefix("e=") {
        return Err(SaslError::Refused(error.to_owned()));
    }
    let given = scram::attribute(message.split(',').next(), 'v').and_then(decode);
    match given {
        Some(signature) if scram::same(&signature, expected) => Ok(()),
        _ => Err(SaslError::Impostor),
    }
}
