//! The preview that comes and goes with an intercept.

use super::{
    connection::GatewayArgs,
    intercept_output::{Event, InterceptOutput},
    preview::preview_path,
};
use crate::{
    api::CreateIntercept,
    client::{ApiAddress, CallError},
    gateway::{
        api::{CreatePreview, PreviewCreated},
        preview::{Access, PreviewWhenAway},
    },
};
use anyhow::Result;
use clap::Args;
use http::StatusCode;

/// When it ends if this command can't end it any more. Seconds.
const LIFETIME: i64 = 7 * 24 * 3600;

#[derive(Args, Debug)]
pub struct InterceptPreviewArgs {
    /// Make a preview as well, and print its link: whoever opens it sees your version, as long as the intercept is
    /// there. Needs a --gateway
    #[arg(long, help_heading = "Gateway")]
    preview: bool,

    /// Print the link as a QR code, too
    #[arg(long, requires = "preview", help_heading = "Gateway")]
    qr: bool,

    #[command(flatten)]
    gateway: GatewayArgs,
}

/// A preview to be made, or made.
pub struct InterceptPreview {
    gateway: ApiAddress,
    qr: bool,
    name: Option<String>,
}

impl InterceptPreviewArgs {
    /// `None`: no preview was asked for.
    pub fn preview(&self) -> Result<Option<InterceptPreview>> {
        if !self.preview {
            return Ok(None);
        }
        Ok(Some(InterceptPreview { gateway: self.gateway.address()?, qr: self.qr, name: None }))
    }
}

impl InterceptPreview {
    /// Makes it, under the intercept's name.
    pub async fn create(
        &mut self,
        intercept: &CreateIntercept,
        output: InterceptOutput,
    ) -> Result<(), CallError> {
        let request = CreatePreview {
            name: intercept.name.clone(),
            owner: intercept.owner.clone(),
            matcher: intercept.matcher.clone(),
            expires_in: Some(LIFETIME),
            access: Access::Link,
            password: None,
            when_away: PreviewWhenAway::Page,
        };
        let created: PreviewCreated = match self.gateway.post("/v1/previews", &request).await {
            // The name is the intercept's, which is ours: a run of this command that was killed left it behind.
            Err(CallError::Refused { status: StatusCode::CONFLICT, .. }) => {
                let name = intercept.name.as_deref().unwrap_or_default();
                self.gateway.delete(&preview_path(name)).await?;
                self.gateway.post("/v1/previews", &request).await?
            }
            created => created?,
        };
        self.name = Some(created.preview.name.clone());
        // That nobody is there yet needs no warning: the tunnel is on its way.
        if created.preview.developer_there.is_none() {
            created.warnings.iter().for_each(|message| output.print(&Event::Warning { message }));
        }
        output.print(&Event::Preview { created: &created, qr: self.qr });
        Ok(())
    }

    /// Ends it, if it was made.
    pub async fn remove(&self) -> Result<(), CallError> {
        match &self.name {
            Some(name) => match self.gateway.delete(&preview_path(name)).await {
                Err(CallError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
                removed => removed,
            },
            None => Ok(()),
        }
    }
}
