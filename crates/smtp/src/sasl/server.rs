//! The server's side of SASL. It decides nothing about who may log in: it asks for a password to be checked, or for a
//! SCRAM verifier, and says when a client has proved itself.

use super::scram::{self, ScramVerifier, attribute};
use super::{ChannelBinding, Mechanism, Password, decode, encode};

/// Longest login or password in octets.
const SECRET_MAX: usize = 1024;

/// The mechanisms a server offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerMechanisms {
    /// PLAIN and LOGIN.
    pub plain: bool,
    /// SCRAM-SHA-256.
    pub scram: bool,
    /// SCRAM-SHA-256-PLUS: `scram` on a connection with channel binding.
    pub scram_plus: bool,
}

impl ServerMechanisms {
    /// Whether this one is offered.
    pub fn has(self, mechanism: Mechanism) -> bool {
        match mechanism {
            Mechanism::Plain | Mechanism::Login => self.plain,
            Mechanism::ScramSha256 => self.scram,
            Mechanism::ScramSha256Plus => self.scram_plus,
            Mechanism::XOauth2 | Mechanism::OauthBearer => false,
        }
    }
}

/// Why an exchange ended without an answer to the question who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// Not base 64, or not what the mechanism says.
    #[error("the response does not fit the mechanism")]
    Malformed,
    /// The client wants to act as somebody else.
    #[error("acting for another user is not supported")]
    Authzid,
    /// The client believes that we offer no channel binding: somebody stripped it, or the binding is another one's.
    #[error("the channel binding does not fit this connection")]
    Binding,
    /// The system gives no random bytes.
    #[error("no random bytes")]
    Random,
}

/// What comes next in an exchange.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send 334 with this text (base 64) and read a line.
    Challenge(String),
    /// Have this password checked.
    Check {
        /// Who it says it is.
        login: String,
        /// With which password.
        password: Password,
    },
    /// Get this login's verifier and call [`Exchange::verifier`].
    Verifier {
        /// Who it says it is.
        login: String,
    },
    /// SCRAM is over.
    Scram {
        /// Who it says it is.
        login: String,
        /// Whether it proved it.
        proven: bool,
    },
}

/// An exchange under way.
#[derive(Debug)]
pub enum Exchange {
    /// PLAIN without an initial response.
    Plain,
    /// LOGIN: the login is asked for.
    Login,
    /// LOGIN: the password is asked for.
    LoginPassword(String),
    /// SCRAM: the client-first message is asked for.
    ScramFirst(ScramContext),
    /// SCRAM: waits for the verifier.
    ScramLookup(Box<ScramStarted>),
    /// SCRAM: server-first is out.
    ScramFinal(Box<ScramChallenged>),
    /// SCRAM: server-final is out, the empty response is asked for.
    ScramEnd(String),
}

/// An exchange and what to do first.
pub type Begun = (Exchange, Next);

/// What SCRAM needs to know of the connection.
#[derive(Clone, Debug)]
pub struct ScramContext {
    plus: bool,
    plus_offered: bool,
    bindings: Vec<ChannelBinding>,
}

/// SCRAM with a client-first message.
#[derive(Debug)]
pub struct ScramStarted {
    login: String,
    bare: String,
    nonce: String,
    /// The GS2 header with the binding data: what `c=` must say.
    bound: Vec<u8>,
}

/// SCRAM with a server-first message.
#[derive(Debug)]
pub struct ScramChallenged {
    login: String,
    verifier: ScramVerifier,
    bound: Vec<u8>,
    nonce: String,
    /// client-first-message-bare "," server-first-message
    messages: String,
}

impl Exchange {
    /// Begins an exchange. `bindings` are those of the TLS connection; `initial` is the response behind the mechanism's
    /// name, in base 64.
    ///
    /// # Errors
    /// See [`ExchangeError`].
    pub fn begin(
        mechanism: Mechanism,
        offered: ServerMechanisms,
        bindings: &[ChannelBinding],
        initial: Option<&str>,
    ) -> Result<Begun, ExchangeError> {
        let (exchange, question) = match mechanism {
            Mechanism::Login => (Exchange::Login, encode(b"Username:")),
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => {
                let plus = mechanism == Mechanism::ScramSha256Plus;
                let context =
                    ScramContext { plus, plus_offered: offered.scram_plus, bindings: bindings.to_vec() };
                (Exchange::ScramFirst(context), String::new())
            }
            Mechanism::Plain | Mechanism::XOauth2 | Mechanism::OauthBearer => {
                (Exchange::Plain, String::new())
            }
        };
        match initial {
            Some(response) => exchange.respond(response),
            None => Ok((exchange, Next::Challenge(question))),
        }
    }

    /// Takes the client's response, a line of base 64.
    ///
    /// # Errors
    /// See [`ExchangeError`].
    pub fn respond(self, response: &str) -> Result<Begun, ExchangeError> {
        let bytes = decode(response).ok_or(ExchangeError::Malformed)?;
        let text = String::from_utf8(bytes).map_err(|_| ExchangeError::Malformed)?;
        match self {
            Exchange::Plain => {
                let (login, password) = plain(&text)?;
                Ok((Exchange::Plain, Next::Check { login, password }))
            }
            Exchange::Login => {
                let login = secret(&text)?;
                Ok((Exchange::LoginPassword(login), Next::Challenge(encode(b"Password:"))))
            }
            Exchange::LoginPassword(login) => {
                let password = Password(secret(&text)?);
                Ok((Exchange::Login, Next::Check { login, password }))
            }
            Exchange::ScramFirst(context) => {
                let started = context.client_first(&text)?;
                let login = started.login.clone();
                Ok((Exchange::ScramLookup(Box::new(started)), Next::Verifier { login }))
            }
            Exchange::ScramFinal(challenged) => challenged.client_final(&text),
            Exchange::ScramEnd(login) if text.is_empty() => {
                Ok((Exchange::ScramEnd(String::new()), Next::Scram { login, proven: true }))
            }
            Exchange::ScramEnd(_) | Exchange::ScramLookup(_) => Err(ExchangeError::Malformed),
        }
    }

    /// Goes on with the verifier that [`Next::Verifier`] asked for; a decoy when there is no such login.
    ///
    /// # Errors
    /// [`ExchangeError::Random`]; [`ExchangeError::Malformed`] when no verifier was asked for.
    pub fn verifier(self, verifier: ScramVerifier) -> Result<Begun, ExchangeError> {
        let nonce = scram::nonce().ok_or(ExchangeError::Random)?;
        self.verifier_with(verifier, &nonce)
    }

    pub(super) fn verifier_with(self, verifier: ScramVerifier, ours: &str) -> Result<Begun, ExchangeError> {
        let Exchange::ScramLookup(started) = self else { return Err(ExchangeError::Malformed) };
        let nonce = format!("{}{ours}", started.nonce);
        let first = format!("r={nonce},s={},i={}", encode(&verifier.salt), verifier.iterations);
        let challenge = encode(first.as_bytes());
        let challenged = ScramChallenged {
            login: started.login,
            verifier,
            bound: started.bound,
            nonce,
            messages: format!("{},{first}", started.bare),
        };
        Ok((Exchange::ScramFinal(Box::new(challenged)), Next::Challenge(challenge)))
    }
}

/// authzid NUL authcid NUL passwd (RFC 4616).
fn plain(text: &str) -> Result<(String, Password), ExchangeError> {
    let mut parts = text.split('\0');
    let (Some(authzid), Some(login), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(ExchangeError::Malformed);
    };
    if !authzid.is_empty() && authzid != login {
        return Err(ExchangeError::Authzid);
    }
    Ok((secret(login)?, Password(secret(password)?)))
}

fn secret(text: &str) -> Result<String, ExchangeError> {
    let fits = !text.is_empty() && text.len() <= SECRET_MAX && !text.contains('\0');
    if fits { Ok(text.to_owned()) } else { Err(ExchangeError::Malformed) }
}

impl ScramContext {
    /// gs2-cbind-flag "," [authzid] "," client-first-message-bare (RFC 5802 section 7).
    fn client_first(&self, text: &str) -> Result<ScramStarted, ExchangeError> {
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(ExchangeError::Malformed);
        };
        let mut bound = format!("{flag},{authzid},").into_bytes();
        match (flag, flag.strip_prefix("p=")) {
            (_, Some(name)) if self.plus => {
                let binding = self.bindings.iter().find(|b| b.kind.name() == name);
                bound.extend_from_slice(&binding.ok_or(ExchangeError::Binding)?.data);
            }
            ("n", _) if !self.plus => {}
            // The client could bind and saw no PLUS: if we offered it, somebody removed it from the list.
            ("y", _) if !self.plus && !self.plus_offered => {}
            ("y", _) => return Err(ExchangeError::Binding),
            _ => return Err(ExchangeError::Malformed),
        }
        let mut attributes = bare.split(',');
        let login = attribute(attributes.next(), 'n').and_then(scram::unescape_name);
        let login = secret(&login.ok_or(ExchangeError::Malformed)?)?;
        let nonce = attribute(attributes.next(), 'r').filter(|n| (8..=256).contains(&n.len()));
        let nonce = nonce.ok_or(ExchangeError::Malformed)?.to_owned();
        if !authzid.is_empty() && attribute(Some(authzid), 'a') != Some(&scram::escape_name(&login)) {
            return Err(ExchangeError::Authzid);
        }
        Ok(ScramStarted { login, bare: bare.to_owned(), nonce, bound })
    }
}

impl ScramChallenged {
    /// "c=" binding "," "r=" nonce "," "p=" proof
    fn client_final(self, text: &str) -> Result<Begun, ExchangeError> {
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ExchangeError::Malformed)?;
        let proof = decode(proof).ok_or(ExchangeError::Malformed)?;
        let mut parts = without_proof.split(',');
        let bound = attribute(parts.next(), 'c').and_then(decode).ok_or(ExchangeError::Malformed)?;
        if attribute(parts.next(), 'r') != Some(&self.nonce) {
            return Err(ExchangeError::Malformed);
        }
        if bound != self.bound {
            return Err(ExchangeError::Binding);
        }
        let auth_message = format!("{},{without_proof}", self.messages);
        if !scram::proof_is_right(&self.verifier, &auth_message, &proof) {
            let failed = Next::Scram { login: self.login, proven: false };
            return Ok((Exchange::ScramEnd(String::new()), failed));
        }
        let signature = scram::server_signature(&self.verifier.server_key, &auth_message);
        let last = format!("v={}", encode(&signature));
        Ok((Exchange::ScramEnd(self.login), Next::Challenge(encode(last.as_bytes()))))
    }
}

#[cfg(test)]
mod tests;
