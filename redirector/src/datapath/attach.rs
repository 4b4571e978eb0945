//! Attaching the ingress program to an interface: a TCX link, or a filter on the clsact qdisc.

use super::{interfaces::Interface, rtnetlink};
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterBpfOption, TcHandle as RouteHandle, TcMessage, TcOption},
};
use std::io;

/// The name of the ingress program, which the kernel shows for its filters too.
pub const PROGRAM: &str = "redirector_ingress";

/// The program that also inspects, attached in the place of [`PROGRAM`] by TCX links only.
pub const INSPECT_PROGRAM: &str = "redirector_inspect";

/// The program on the way out, which only TCX links attach.
pub const EGRESS_PROGRAM: &str = "redirector_egress";

/// Our filters carry one of two handles, so that whoever sweeps after a crash knows whose the qdisc is.
const QDISC_WAS_THERE: u16 = 1;
const QDISC_IS_OURS: u16 = 2;

/// How the program is attached to interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachKind {
    /// TCX where the kernel has it, else clsact.
    #[default]
    Auto,
    /// A TCX link (kernel 6.6): the kernel detaches it when the agent ends, however it ends.
    Tcx,
    /// A filter on the clsact qdisc: outlives SIGKILL, inert until the next start sweeps it.
    Clsact,
}

/// The program on one interface; dropping it detaches. Drop it in the namespace it was made in.
pub struct Attachment {
    pub interface: Interface,
    /// `Tcx` or `Clsact`, never `Auto`.
    pub kind: AttachKind,
    link: Option<SchedClassifierLink>,
    egress: Option<SchedClassifierLink>,
    owns_qdisc: bool,
}

impl Attachment {
    /// Attaches `program`; `Auto` tries TCX and falls back where the kernel says that it has none.
    pub fn attach(
        program: &mut SchedClassifier,
        interface: &Interface,
        kind: AttachKind,
    ) -> Result<Self, ProgramError> {
        match kind {
            AttachKind::Tcx => Self::attach_tcx(program, interface),
            AttachKind::Clsact => Self::attach_clsact(program, interface),
            AttachKind::Auto => match Self::attach_tcx(program, interface) {
                Err(ProgramError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(libc::EINVAL) =>
                {
                    Self::attach_clsact(program, interface)
                }
                other => other,
            },
        }
    }

    fn attach_tcx(program: &mut SchedClassifier, interface: &Interface) -> Result<Self, ProgramError> {
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program.attach_with_options(&interface.name, TcAttachType::Ingress, options)?;
        let link = program.take_link(id)?;
        Ok(Self {
            interface: interface.clone(),
            kind: AttachKind::Tcx,
            link: Some(link),
            egress: None,
            owns_qdisc: false,
        })
    }

    /// Not, once a replacement has failed.
    pub fn is_attached(&self) -> bool {
        self.link.is_some()
    }

    /// Puts `program` in the place of the one that is attached, by TCX.
    pub fn replace(&mut self, program: &mut SchedClassifier) -> Result<(), ProgramError> {
        if let Some(link) = self.link.take() {
            let id = program.attach_to_link(link)?;
            self.link = Some(program.take_link(id)?);
        }
        Ok(())
    }

    /// Attaches `program` to the same interface's way out. Kernels that have no TCX have no such program.
    pub fn attach_egress(&mut self, program: &mut SchedClassifier) -> Result<(), ProgramError> {
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program.attach_with_options(&self.interface.name, TcAttachType::Egress, options)?;
        self.egress = Some(program.take_link(id)?);
        Ok(())
    }

    fn attach_clsact(program: &mut SchedClassifier, interface: &Interface) -> Result<Self, ProgramError> {
        let owns_qdisc = qdisc_add_clsact(&interface.name).is_ok();
        let minor = if owns_qdisc { QDISC_IS_OURS } else { QDISC_WAS_THERE };
        let options =
            TcAttachOptions::Netlink(NlOptions { handle: TcHandle::new(0, minor), ..NlOptions::default() });
        let id = program.attach_with_options(&interface.name, TcAttachType::Ingress, options)?;
        let link = program.take_link(id)?;
        Ok(Self {
            interface: interface.clone(),
            kind: AttachKind::Clsact,
            link: Some(link),
            egress: None,
            owns_qdisc,
        })
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        drop(self.link.take());
        drop(self.egress.take());
        if self.owns_qdisc
            && let Err(error) = remove_qdisc_if_unused(self.interface.index)
        {
            tracing::debug!(interface = self.interface.name, %error, "clsact qdisc stays");
        }
    }
}

/// One of our filters, found on an interface.
pub struct FoundFilter {
    pub program_id: u32,
    pub owns_qdisc: bool,
}

/// Our filters on the ingress of the clsact qdisc of interface `index`.
pub fn our_filters(index: u32) -> io::Result<Vec<FoundFilter>> {
    let mut found = Vec::new();
    for message in filters(index, RouteHandle::MIN_INGRESS)? {
        let mut ours = false;
        let mut program_id = 0;
        for option in options(&message) {
            match option {
                TcFilterBpfOption::ProgName(name) => ours = name.starts_with(PROGRAM),
                TcFilterBpfOption::ProgId(id) => program_id = *id,
                _ => {}
            }
        }
        if ours {
            found.push(FoundFilter { program_id, owns_qdisc: message.header.handle.minor == QDISC_IS_OURS });
        }
    }
    Ok(found)
}

/// Deletes the clsact qdisc unless somebody's filter is on it.
pub fn remove_qdisc_if_unused(index: u32) -> io::Result<()> {
    for direction in [RouteHandle::MIN_INGRESS, RouteHandle::MIN_EGRESS] {
        if !filters(index, direction)?.is_empty() {
            return Ok(());
        }
    }
    let mut message = TcMessage::with_index(index as i32);
    message.header.parent = RouteHandle { major: 0xffff, minor: 0xfff1 };
    message.header.handle = RouteHandle { major: 0xffff, minor: 0 };
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    rtnetlink::execute(RouteNetlinkMessage::DelQueueDiscipline(message))
}

fn filters(index: u32, direction: u16) -> io::Result<Vec<TcMessage>> {
    let mut request = TcMessage::with_index(index as i32);
    request.header.parent = RouteHandle { major: 0xffff, minor: direction };
    let answers = rtnetlink::dump(RouteNetlinkMessage::GetTrafficFilter(request))?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewTrafficFilter(message) => Some(message),
            _ => None,
        })
        // Each priority also shows a head entry that has no options: not a filter.
        .filter(|message| message.attributes.iter().any(|a| matches!(a, TcAttribute::Options(_))))
        .collect())
}

fn options(message: &TcMessage) -> impl Iterator<Item = &TcFilterBpfOption> {
    message
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        })
        .flatten()
        .filter_map(|option| match option {
            TcOption::Bpf(option) => Some(option),
            _ => None,
        })
}
