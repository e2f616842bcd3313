//! Groups and saved audiences inside expressions: their sets are looked up here, and joined with what the rest of the
//! expression selects.
//!
//! The parts of an expression that name none are answered by whoever is behind this, each in one piece.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use audience::{Expr, Invalid, Leaf, Saved, Select, SelectError};
use model::{AppId, Env, Means, Members, Ordinals, SavedAudience, Timestamp};
use store::{SharedStore, shelves};

/// How deep saved audiences may name each other; also what ends a circle of them.
const NESTING_MAX: usize = 4;

/// Groups and audiences that one expression may lead to, itself or through others: each is a read of the store, and a
/// question of its own.
const SAVED_MAX: usize = 256;

/// Knows groups and saved audiences.
pub(crate) struct WithSaved {
    pub(crate) inner: Arc<dyn Select>,
    pub(crate) store: SharedStore,
}

/// Who asks, and as of when.
struct Asked<'a> {
    app: &'a AppId,
    env: Env,
    now: Timestamp,
    /// Everybody: what a complement is taken from.
    registered: Ordinals,
    /// How many were looked up.
    found: AtomicUsize,
}

type Selecting<'a> = Pin<Box<dyn Future<Output = Result<Ordinals, SelectError>> + Send + 'a>>;

#[async_trait]
impl Select for WithSaved {
    async fn select(&self, app: &AppId, env: Env, expression: &str, now: Timestamp) -> Result<Ordinals, SelectError> {
        let expr: Expr = expression.parse()?;
        if expr.saved().is_empty() {
            return self.inner.select(app, env, expression, now).await;
        }
        let registered = self.store.registered(app, env).await.map_err(unavailable)?;
        let asked = Asked { app, env, now, registered, found: AtomicUsize::new(0) };
        self.whom(&asked, &expr, 0).await
    }

    async fn count(&self, app: &AppId, env: Env, expression: &str, now: Timestamp) -> Result<u64, SelectError> {
        if expression.parse::<Expr>()?.saved().is_empty() {
            return self.inner.count(app, env, expression, now).await;
        }
        Ok(self.select(app, env, expression, now).await?.len())
    }

    async fn tags(
        &self,
        app: &AppId,
        env: Env,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, u64)>, SelectError> {
        self.inner.tags(app, env, after, limit).await
    }

    fn check(&self, app: &AppId, expression: &str) -> Result<(), Invalid> {
        self.inner.check(app, expression)
    }
}

impl WithSaved {
    fn whom<'a>(&'a self, asked: &'a Asked<'a>, expr: &'a Expr, deep: usize) -> Selecting<'a> {
        Box::pin(async move {
            if expr.saved().is_empty() {
                return self.plain(asked, expr).await;
            }
            match expr {
                Expr::Leaf(Leaf::Saved(saved)) => self.saved(asked, *saved, deep).await,
                Expr::Leaf(_) => self.plain(asked, expr).await,
                Expr::Not(part) => {
                    let mut rest = asked.registered.clone();
                    rest -= &self.whom(asked, part, deep).await?;
                    Ok(rest)
                }
                Expr::All(parts) => {
                    let (plain, others) = split(parts);
                    let mut all = match join(plain, |one, other| one & other) {
                        Some(plain) => self.plain(asked, &plain).await?,
                        None => asked.registered.clone(),
                    };
                    for part in others {
                        match part {
                            Expr::Not(part) => all -= &self.whom(asked, part, deep).await?,
                            part => all &= &self.whom(asked, part, deep).await?,
                        }
                    }
                    Ok(all)
                }
                Expr::Any(parts) => {
                    let (plain, others) = split(parts);
                    let mut any = match join(plain, |one, other| one | other) {
                        Some(plain) => self.plain(asked, &plain).await?,
                        None => Ordinals::new(),
                    };
                    for part in others {
                        any |= &self.whom(asked, part, deep).await?;
                    }
                    Ok(any)
                }
            }
        })
    }

    async fn plain(&self, asked: &Asked<'_>, expr: &Expr) -> Result<Ordinals, SelectError> {
        self.inner.select(asked.app, asked.env, &expr.to_string(), asked.now).await
    }

    async fn saved(&self, asked: &Asked<'_>, saved: Saved, deep: usize) -> Result<Ordinals, SelectError> {
        let store = &*self.store;
        if asked.found.fetch_add(1, Ordering::Relaxed) >= SAVED_MAX {
            let reason = format!("it leads to more than {SAVED_MAX} groups and audiences");
            return Err(Invalid { column: 1, reason, code: "filter_too_complex" }.into());
        }
        let mut members = match saved {
            Saved::Group(id) => {
                let group = store.group(asked.app, id).await.map_err(unavailable)?;
                let ours = group.is_some_and(|group| group.env == asked.env);
                let members = if ours { store.members(asked.app, id).await.map_err(unavailable)? } else { None };
                members.ok_or_else(|| gone("unknown_group", saved))?
            }
            Saved::Audience(id) => {
                let name = id.to_string();
                let found = shelves::find::<SavedAudience>(store, asked.app, asked.env, &name);
                let audience = found.await.map_err(unavailable)?.ok_or_else(|| gone("unknown_audience", saved))?;
                match audience.means {
                    Means::Filter(_) if deep == NESTING_MAX => return Err(too_deep().into()),
                    Means::Filter(text) => return self.whom(asked, &text.parse::<Expr>()?, deep + 1).await,
                    Means::List(_) => {
                        let list = shelves::find::<Members>(store, asked.app, asked.env, &name);
                        list.await.map_err(unavailable)?.unwrap_or_default().0
                    }
                }
            }
        };
        members &= &asked.registered;
        Ok(members)
    }
}

/// Those that name nothing saved, and the others.
fn split(parts: &[Expr]) -> (Vec<Expr>, Vec<&Expr>) {
    let (plain, others): (Vec<&Expr>, Vec<&Expr>) = parts.iter().partition(|part| part.saved().is_empty());
    (plain.into_iter().cloned().collect(), others)
}

fn join(parts: Vec<Expr>, with: fn(Expr, Expr) -> Expr) -> Option<Expr> {
    parts.into_iter().reduce(with)
}

fn gone(code: &'static str, saved: Saved) -> SelectError {
    Invalid { column: 1, reason: format!("{saved} does not exist"), code }.into()
}

fn too_deep() -> Invalid {
    let reason = format!("saved audiences name each other more than {NESTING_MAX} deep");
    Invalid { column: 1, reason, code: "filter_too_complex" }
}

/// Whatever ails the store, the expression is not to blame: an empty audience would be a wrong answer.
fn unavailable(error: store::Error) -> SelectError {
    SelectError::Unavailable(error.to_string())
}
