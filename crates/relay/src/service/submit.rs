//! Messages that come by the management socket: `posthouse sendmail`.

use api::Upload;
use api::types::Envelope;
use mail::{Actor, Address, EnhancedStatus, MessageId, OrgId, Recipient, Reply};
use receive::{Backend, LocalMessage};

use super::Relay;
use crate::pipeline::Pipeline;

impl Relay {
    /// Takes a message from a program on this machine. Who may use the socket may send as anyone.
    pub(super) async fn submit(
        self: std::sync::Arc<Self>,
        by: Actor,
        envelope: Envelope,
        mut content: Upload,
    ) -> Result<MessageId, Reply> {
        let envelope = self.envelope(&envelope)?;
        let pipeline = Pipeline(self);
        let mut message = LocalMessage::begin(&pipeline, envelope).await?;
        loop {
            match content.chunk().await {
                Ok(Some(piece)) => message.write(&piece).await?,
                Ok(None) => break,
                Err(error) => return Err(Reply::new(550, EnhancedStatus::new(5, 6, 0), error.to_string())),
            }
        }
        let mut submission = message.finish(&pipeline, OrgId::DEFAULT).await?;
        submission.message.origin.credential = Some(by);
        pipeline.admit(submission).await
    }

    fn envelope(&self, wanted: &Envelope) -> Result<smtp::server::Envelope, Reply> {
        let parse = |text: &str| {
            Address::parse(text)
                .map_err(|error| Reply::new(553, EnhancedStatus::new(5, 1, 3), format!("{text:?}: {error}")))
        };
        let limit = self.config.load().limits.recipients;
        if wanted.to.len() > limit {
            let text = format!("Too many recipients: {limit} at most in one message");
            return Err(Reply::new(550, EnhancedStatus::new(5, 5, 3), text));
        }
        let sender = wanted.from.trim_matches(|c| c == '<' || c == '>');
        let reverse_path = if sender.is_empty() { None } else { Some(parse(sender)?) };
        let recipients: Vec<Recipient> =
            wanted.to.iter().map(|to| parse(to).map(Recipient::new)).collect::<Result<_, _>>()?;
        let directory = self.directory.snapshot();
        for recipient in &recipients {
            // There is one answer for all of them: nothing is sent, and the program is told whom to leave out.
            check::authorise::not_suppressed(&directory, OrgId::DEFAULT, &recipient.address)?;
        }
        if recipients.is_empty() {
            return Err(Reply::new(554, EnhancedStatus::new(5, 5, 1), "No recipients"));
        }
        let is_ascii =
            reverse_path.iter().chain(recipients.iter().map(|r| &r.address)).all(Address::is_ascii);
        Ok(smtp::server::Envelope {
            reverse_path,
            recipients,
            size: None,
            body: None,
            smtputf8: !is_ascii,
            ret: None,
            envid: None,
            require_tls: false,
        })
    }
}
