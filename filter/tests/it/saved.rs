//! Groups and saved audiences inside expressions.

use audience::SelectError;
use model::{
    AudienceId, Clock as _, Env, Group, GroupId, Means, Members, Ordinal, Ordinals, SavedAudience, SystemClock,
    group::Source,
};
use store::shelves;

use crate::bench::Bench;

fn set(ordinals: &[u32]) -> Ordinals {
    ordinals.iter().copied().map(Ordinal).collect()
}

async fn group(bench: &Bench, env: Env, members: &[u32]) -> GroupId {
    let now = SystemClock.now();
    let id = GroupId::new(now, u128::from(members[0]));
    bench
        .store
        .put_group(&bench.app, Group { id, name: "some".into(), env, created_at: now, source: Source::Static })
        .await
        .unwrap();
    bench.store.change_members(&bench.app, id, set(members), set(&[])).await.unwrap();
    id
}

async fn saved(bench: &Bench, number: u128, means: Means) -> AudienceId {
    let now = SystemClock.now();
    let id = AudienceId::new(now, number);
    let audience = SavedAudience { id, name: "some".into(), means, created_at: now, updated_at: now };
    shelves::put(&*bench.store, &bench.app, Env::Live, &id.to_string(), &audience).await.unwrap();
    id
}

#[tokio::test]
async fn they_are_joined_with_the_rest_of_the_expression() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    for id in ["a", "b", "c", "d", "e"] {
        bench.device(id).await;
    }
    let group = group(&bench, Env::Live, &[0, 1, 2, 99]).await;
    let list = saved(&bench, 1, Means::List(2)).await;
    shelves::put(&*bench.store, &bench.app, Env::Live, &list.to_string(), &Members(set(&[1, 3, 99]))).await.unwrap();
    let filter = saved(&bench, 2, Means::Filter(format!("group(\"{group}\") && !audience(\"{list}\")"))).await;
    for (expression, names) in [
        (format!("group('{group}')"), vec!["a", "b", "c"]),
        (format!("!group('{group}')"), vec!["d", "e"]),
        (format!("audience('{list}')"), vec!["b", "d"]),
        (format!("audience('{filter}')"), vec!["a", "c"]),
        (format!("group('{group}') && missing(attr.x) && !audience('{list}')"), vec!["a", "c"]),
        (format!("group('{group}') && has(attr.x)"), vec![]),
        (format!("audience('{list}') || has(attr.x) || group('{group}')"), vec!["a", "b", "c", "d"]),
        (format!("missing(attr.x) && !(audience('{list}') || audience('{filter}'))"), vec!["e"]),
    ] {
        assert_eq!(bench.selected(&expression).await.unwrap(), names, "{expression}");
    }
    bench.store.remove(&bench.app, &"b".parse().unwrap()).await.unwrap();
    assert_eq!(bench.selected(&format!("audience('{list}')")).await.unwrap(), ["d"]);
}

#[tokio::test]
async fn what_is_gone_foreign_or_a_circle_is_refused_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    bench.device("a").await;
    let foreign = group(&bench, Env::Test, &[0]).await;
    let circle = saved(&bench, 1, Means::List(0)).await;
    let means = Means::Filter(format!("!audience(\"{circle}\")"));
    let audience = SavedAudience {
        id: circle,
        name: "some".into(),
        means,
        created_at: SystemClock.now(),
        updated_at: SystemClock.now(),
    };
    shelves::put(&*bench.store, &bench.app, Env::Live, &circle.to_string(), &audience).await.unwrap();
    for (expression, code) in [
        (format!("!group('{foreign}')"), "unknown_group"),
        ("audience('aud_01JD7Q2Z4M8V6T3K5N9R0WXYEC') || missing(attr.x)".to_owned(), "unknown_audience"),
        (format!("audience('{circle}')"), "filter_too_complex"),
    ] {
        let Err(SelectError::Invalid(invalid)) = bench.selected(&expression).await else { panic!("{expression}") };
        assert_eq!(invalid.code, code);
    }
}
