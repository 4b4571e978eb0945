//! Which preview a request is for, and whether its visitor may see it.

use super::{
    cookie::{self, Ticket},
    link::OWN_PATHS,
    local_path,
    page::{Page, PasswordProblem},
    password,
    preview::{Access, Ended, LivePreview, PreviewId},
    proxy::{Connection, Gateway, answer_with, empty},
    route::Asked,
    store::Found,
    upstream::Body,
};
use http::{HeaderValue, Method, Request, Response, StatusCode, header, uri::Authority};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use jiff::Timestamp;
use std::{
    net::IpAddr,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// Longest form with a password. Bytes.
const MAX_FORM: usize = 16 * 1024;

/// How long a form may take.
const FORM_TIMEOUT: Duration = Duration::from_secs(30);

/// What becomes of a request.
pub enum Visit {
    /// It sees a preview. `by_cookie`: on a host which shows the live version to others.
    Preview { live: Arc<LivePreview>, by_cookie: bool },
    /// It sees the live version.
    Live,
    /// It has its answer.
    Answered(Response<Body>),
}

impl Gateway {
    /// The request is given back where it is to be passed on.
    pub async fn visit(
        &self,
        request: Request<Incoming>,
        asked: &Authority,
        connection: Connection,
    ) -> (Option<Request<Incoming>>, Visit) {
        let path = request.uri().path().to_owned();
        let visit = match self.site.asked(asked, &path) {
            Asked::OtherHost => Visit::Answered(answer_with(&Page::OtherHost)),
            Asked::Site => self.by_cookie(&request),
            Asked::Preview { id } => self.by_host(&request, &id),
            Asked::ShareLink { id, on_preview_host } => {
                let response = match self.live(id) {
                    Ok(live) => self.share_link(request, id, &live, on_preview_host, connection).await,
                    Err(page) => answer_with(&page),
                };
                return (None, Visit::Answered(response));
            }
        };
        (Some(request), visit)
    }

    /// The preview whose own host was asked.
    fn by_host(&self, request: &Request<Incoming>, id: &str) -> Visit {
        let live = match self.live(id) {
            Ok(live) => live,
            Err(page) => return Visit::Answered(answer_with(&page)),
        };
        if live.preview.access == Access::Password && !self.has_session(request, &live) {
            let to = request.uri().path_and_query().map_or("/", |path| path.as_str());
            return Visit::Answered(form(&id.to_ascii_lowercase(), to, None));
        }
        Visit::Preview { live, by_cookie: false }
    }

    /// The preview whose cookie the visitor has, if any.
    fn by_cookie(&self, request: &Request<Incoming>) -> Visit {
        let tickets = cookie::tickets(request.headers());
        let found: Vec<Found> = tickets.iter().map(|ticket| self.of_ticket(ticket.as_ref())).collect();
        // Another site on the same domain can add cookies of this name: one that is good counts.
        for found in &found {
            if let Found::Live(live) = found {
                return Visit::Preview { live: Arc::clone(live), by_cookie: true };
            }
        }
        match found.first() {
            Some(found) => {
                let mut response = answer_with(&ended_or_unknown(found));
                let clear = cookie::clear_cookie(self.public_url.is_secure());
                response.headers_mut().append(header::SET_COOKIE, clear);
                Visit::Answered(response)
            }
            None if self.pass_through => Visit::Live,
            None => Visit::Answered(answer_with(&Page::NoLiveVersion)),
        }
    }

    fn of_ticket(&self, ticket: Option<&Ticket>) -> Found {
        let now = Timestamp::now();
        match ticket {
            Some(Ticket::Id(id)) => match self.store.find(id.hash(), now) {
                // The link alone does not open it.
                Found::Live(live) if live.preview.access == Access::Password => Found::Unknown,
                found => found,
            },
            Some(Ticket::Session(secret)) => match self.store.session(secret) {
                Some(preview) => self.store.find(preview, now),
                // Visits end with their preview.
                None => Found::Ended(Ended::Removed),
            },
            None => Found::Unknown,
        }
    }

    fn has_session(&self, request: &Request<Incoming>, live: &LivePreview) -> bool {
        cookie::tickets(request.headers()).iter().flatten().any(|ticket| match ticket {
            Ticket::Session(secret) => self.store.session(secret) == Some(live.hash),
            Ticket::Id(_) => false,
        })
    }

    /// `/_p/ID`: opens the preview in this browser, on this host, after the password if it has one.
    async fn share_link(
        &self,
        request: Request<Incoming>,
        id: &str,
        live: &LivePreview,
        on_preview_host: bool,
        connection: Connection,
    ) -> Response<Body> {
        let to = local_path::destination(request.uri().query());
        match (live.preview.access, request.method().clone()) {
            (Access::Password, Method::POST) => {
                let client = self.trusted.client(request.headers(), connection.peer.ip());
                self.password(request.into_body(), id, live, client).await
            }
            (Access::Password, Method::GET | Method::HEAD) if self.has_session(&request, live) => {
                redirect(&to)
            }
            (Access::Password, Method::GET | Method::HEAD) => form(id, &to, None),
            (_, Method::GET | Method::HEAD) => {
                let mut response = redirect(&to);
                if !on_preview_host && let Ok(id) = id.parse::<PreviewId>() {
                    self.set_cookie(&mut response, &Ticket::Id(id), live);
                }
                response
            }
            _ => answer_with(&Page::MethodNotAllowed),
        }
    }

    async fn password(&self, body: Incoming, id: &str, live: &LivePreview, client: IpAddr) -> Response<Body> {
        let form_body = timeout(FORM_TIMEOUT, Limited::new(body, MAX_FORM).collect()).await;
        let Ok(Ok(form_body)) = form_body else {
            return answer_with(&Page::BadRequest { reason: "its form is too long, or took too long" });
        };
        let bytes = form_body.to_bytes();
        let field = |name: &str| {
            form_urlencoded::parse(&bytes).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        let to = field("to").and_then(|to| local_path::local_path(&to)).unwrap_or_else(|| "/".to_owned());
        let Some(password) = field("password") else { return form(id, &to, None) };
        let taken = self.attempts.lock().unwrap_or_else(PoisonError::into_inner).take(
            live.hash,
            client,
            Instant::now(),
        );
        if let Err(password::TooMany { wait }) = taken {
            return form(id, &to, Some(PasswordProblem::TooMany { wait }));
        }
        if !self.is_right(password, live).await {
            return form(id, &to, Some(PasswordProblem::Wrong));
        }
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).give_back(live.hash, client);
        let (store, hash) = (Arc::clone(&self.store), live.hash);
        match tokio::task::spawn_blocking(move || store.open_session(hash)).await {
            Ok(Ok(secret)) => {
                let mut response = redirect(&to);
                self.set_cookie(&mut response, &Ticket::Session(secret), live);
                response
            }
            failed => {
                tracing::warn!(?failed, "a visit could not be opened");
                answer_with(&Page::Failed)
            }
        }
    }

    async fn is_right(&self, password: String, live: &LivePreview) -> bool {
        let Some(hash) = live.preview.password.clone() else { return false };
        let Ok(_place) = self.hashing.acquire().await else { return false };
        tokio::task::spawn_blocking(move || password::is_right(&password, &hash)).await.unwrap_or(false)
    }

    fn set_cookie(&self, response: &mut Response<Body>, ticket: &Ticket, live: &LivePreview) {
        let seconds = live.preview.expires.duration_since(Timestamp::now()).as_secs().max(0);
        let cookie = ticket.set_cookie(self.public_url.is_secure(), seconds);
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }

    /// The preview with this id, or a page for who asked for it.
    fn live(&self, id: &str) -> Result<Arc<LivePreview>, Page<'static>> {
        let Ok(id) = id.parse::<PreviewId>() else { return Err(Page::Unknown) };
        match self.store.find(id.hash(), Timestamp::now()) {
            Found::Live(live) => Ok(live),
            found => Err(ended_or_unknown(&found)),
        }
    }
}

fn ended_or_unknown(found: &Found) -> Page<'static> {
    match found {
        Found::Ended(how) => Page::Ended(*how),
        Found::Live(_) | Found::Unknown => Page::Unknown,
    }
}

/// `id` is one, so it needs no escape in a path.
fn form(id: &str, to: &str, problem: Option<PasswordProblem>) -> Response<Body> {
    answer_with(&Page::Password { action: &format!("{OWN_PATHS}{id}"), to, problem })
}

/// See Other, whatever the method was; nobody is to keep it.
fn redirect(to: &str) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/")));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
