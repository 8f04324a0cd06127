use std::collections::HashSet;

use mail::Notify;
use proptest::prelude::*;

use super::*;

const ORG: OrgId = OrgId(7);

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// Aliases as `from: to to`, all of the whole relay.
fn rules(lines: &[&str]) -> Rules {
    let alias = |line: &&str| {
        let (from, to) = line.split_once(": ").unwrap();
        Alias::parse(from, &to.split(' ').collect::<Vec<_>>(), None).unwrap()
    };
    Rules { aliases: lines.iter().map(alias).collect(), ..Rules::default() }
}

fn rewriter(lines: &[&str]) -> Rewriter {
    Rewriter::compile(rules(lines)).unwrap()
}

fn expand(rewriter: &Rewriter, recipients: &[&str]) -> Expansion {
    let recipients: Vec<Recipient> = recipients.iter().map(|r| Recipient::new(address(r))).collect();
    rewriter.expand(ORG, None, &recipients)
}

fn became(rewriter: &Rewriter, recipients: &[&str]) -> Vec<(u16, String)> {
    let expansion = expand(rewriter, recipients);
    assert_eq!(expansion.refused, [], "{recipients:?}");
    expansion.recipients.into_iter().map(|e| (e.from, e.recipient.address.to_string())).collect()
}

fn to(rewriter: &Rewriter, recipient: &str) -> Vec<String> {
    became(rewriter, &[recipient]).into_iter().map(|(_, address)| address).collect()
}

fn of_org(mut alias: Alias, org: OrgId) -> Alias {
    alias.org = Some(org);
    alias
}

fn pattern(text: &str, replace: &str, org: Option<OrgId>) -> Rewrite {
    Rewrite::parse(text, replace, true, false, org).unwrap()
}

#[test]
fn exact_before_catch_all_before_pattern() {
    let mut rules = rules(&["sales@d.example: ann@x.example", "@d.example: all@x.example"]);
    rules.rewrites.push(pattern("(.+)@(d|e).example", "$1-$2@x.example", None));
    let rewriter = Rewriter::compile(rules).unwrap();
    assert_eq!(to(&rewriter, "sales@d.example"), ["ann@x.example"]);
    assert_eq!(to(&rewriter, "SALES@D.example"), ["ann@x.example"], "in any case");
    assert_eq!(to(&rewriter, "other@d.example"), ["all@x.example"]);
    assert_eq!(to(&rewriter, "other@e.example"), ["other-e@x.example"]);
    assert_eq!(to(&rewriter, "other@f.example"), ["other@f.example"]);
}

#[test]
fn the_organisations_rules_come_before_everyones() {
    let mut rules = rules(&["a@d.example: global@x.example"]);
    rules.aliases.push(of_org(Alias::parse("@d.example", &["org@x.example"], None).unwrap(), ORG));
    rules.aliases.push(of_org(Alias::parse("b@d.example", &["other@x.example"], None).unwrap(), OrgId(8)));
    rules.rewrites.push(pattern("c@e.example", "pattern@x.example", Some(ORG)));
    rules.aliases.push(Alias::parse("c@e.example", &["global@x.example"], None).unwrap());
    let rewriter = Rewriter::compile(rules).unwrap();
    assert_eq!(to(&rewriter, "a@d.example"), ["org@x.example"]);
    assert_eq!(to(&rewriter, "b@d.example"), ["org@x.example"], "another organisation's alias is not ours");
    assert_eq!(to(&rewriter, "c@e.example"), ["pattern@x.example"]);
    assert!(rewriter.speaks_of(ORG, &address("z@d.example")));
    assert!(!rewriter.speaks_of(OrgId(9), &address("z@d.example")));
    assert!(rewriter.speaks_of(OrgId(9), &address("a@d.example")));
}

#[test]
fn an_alias_that_names_itself_keeps_itself() {
    let rewriter = rewriter(&[
        "a@d.example: a@d.example b@d.example",
        "b@d.example: c@d.example a@d.example",
        "me@e.example: me@e.example",
        "@e.example: all@e.example",
    ]);
    assert_eq!(to(&rewriter, "a@d.example"), ["a@d.example", "c@d.example"]);
    assert_eq!(to(&rewriter, "b@d.example"), ["c@d.example", "a@d.example"]);
    assert!(expand(&rewriter, &["a@d.example"]).problems.is_empty(), "no loop to tell of");
    assert_eq!(
        to(&rewriter, "all@e.example"),
        ["all@e.example"],
        "a catch-all to an address in its own domain"
    );
    let kept = expand(&rewriter, &["me@e.example"]).recipients;
    assert_eq!(kept[0].recipient, Recipient::new(address("me@e.example")), "out of the catch-all, unchanged");
    assert!(!kept[0].forwarded);
    let round = "an alias leads back to itself: b@d.example → a@d.example → b@d.example";
    assert_eq!(rewriter.warnings(), [round]);
}

#[test]
fn loops_are_left_out_and_told_of() {
    let rewriter = rewriter(&[
        "a@d.example: b@d.example x@x.example",
        "b@d.example: a@d.example y@x.example",
        "c@d.example: e@d.example",
        "e@d.example: c@d.example",
    ]);
    let expansion = expand(&rewriter, &["a@d.example"]);
    let found: Vec<_> = expansion.recipients.iter().map(|e| e.recipient.address.as_str()).collect();
    assert_eq!(found, ["y@x.example", "x@x.example"]);
    let told = "an alias leads back to itself: a@d.example → b@d.example → a@d.example";
    assert_eq!(expansion.problems, [told]);
    let refused = expand(&rewriter, &["c@d.example", "z@z.example"]);
    assert_eq!(refused.recipients.len(), 1);
    assert_eq!((refused.refused[0].from, refused.refused[0].status.to_string().as_str()), (0, "5.4.6"));
    assert_eq!(
        refused.refused[0].words,
        "the alias c@d.example leads only back to itself: c@d.example → e@d.example → c@d.example"
    );
    assert_eq!(rewriter.warnings().len(), 4, "{:?}", rewriter.warnings());
}

#[test]
fn depth_is_limited() {
    let lines: Vec<String> = (0..20).map(|n| format!("a{n}@d.example: a{}@d.example", n + 1)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let rewriter = rewriter(&lines);
    assert_eq!(to(&rewriter, "a10@d.example"), ["a20@d.example"], "ten in a row");
    let refused = expand(&rewriter, &["a9@d.example"]).refused;
    assert_eq!(refused[0].status, EnhancedStatus::new(5, 4, 6));
    assert!(refused[0].words.contains("more than 10 times: a9@d.example → a10@d.example"), "{refused:?}");
    let deep = Rewriter::compile(Rules { depth: 20, ..rules(&lines) }).unwrap();
    assert_eq!(to(&deep, "a0@d.example"), ["a20@d.example"]);
    for bad in [0, 101] {
        assert_eq!(Rewriter::compile(Rules { depth: bad, ..rules(&[]) }).unwrap_err(), RuleError::Depth);
    }
}

#[test]
fn what_aliases_make_of_one_message_is_limited() {
    let members: Vec<String> = (0..6).map(|n| format!("m{n}@x.example")).collect();
    let line = format!("all@d.example: {}", members.join(" "));
    let rules = Rules { recipients: 10, ..rules(&[&line, "one@d.example: one@x.example"]) };
    let rewriter = Rewriter::compile(rules).unwrap();
    let many: Vec<String> = (0..50).map(|n| format!("p{n}@y.example")).collect();
    let mut recipients: Vec<&str> = many.iter().map(String::as_str).collect();
    recipients.extend(["all@d.example", "one@d.example", "all@d.example"]);
    let expansion = expand(&rewriter, &recipients);
    assert_eq!(expansion.recipients.len(), 57, "the envelope's own recipients don't count");
    assert_eq!(expansion.refused.len(), 1);
    assert_eq!(expansion.refused[0].from, 52);
    assert!(expansion.refused[0].words.contains("more than 10 recipients"), "{:?}", expansion.refused);
}

#[test]
fn aliases_that_lead_everywhere_end_soon() {
    // Every one of 40 leads to all the others: 39! ways.
    let names: Vec<String> = (0..40).map(|n| format!("a{n}@d.example")).collect();
    let lines: Vec<String> =
        names.iter().map(|n| format!("{n}: {} end@x.example", names.join(" "))).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let rewriter = Rewriter::compile(Rules { depth: 100, ..rules(&lines) }).unwrap();
    let expansion = expand(&rewriter, &["a0@d.example"]);
    assert_eq!(expansion.recipients.len(), 41, "each names itself");
}

#[test]
fn a_pattern_is_used_once_on_a_way() {
    let mut rules = rules(&["x-a@d.example: b@d.example"]);
    rules.rewrites.push(pattern("(.+)@d.example", "x-$1@d.example", None));
    rules.rewrites.push(pattern("x-(.+)@d.example", "$1@end.example", None));
    let rewriter = Rewriter::compile(rules).unwrap();
    assert_eq!(to(&rewriter, "b@d.example"), ["b@end.example"]);
    assert_eq!(to(&rewriter, "a@d.example"), ["b@d.example"], "not again behind an alias in between");
}

#[test]
fn a_whole_domain_moves() {
    let rewriter =
        rewriter(&["@old.example: @new.example archive@a.example", "@same.example: @same.example"]);
    assert_eq!(to(&rewriter, "Ann@old.example"), ["Ann@new.example", "archive@a.example"]);
    assert_eq!(to(&rewriter, "\"a b\"@old.example")[0], "\"a b\"@new.example");
    assert_eq!(to(&rewriter, "x@same.example"), ["x@same.example"]);
}

#[test]
fn what_makes_no_address_is_refused_with_words_and_a_sender_stays() {
    let mut rules = rules(&[]);
    rules.rewrites.push(Rewrite::parse("(.+)@(.+)", "$1$1$1@$2", true, true, None).unwrap());
    let rewriter = Rewriter::compile(rules).unwrap();
    let long = address(&format!("{}@d.example", "a".repeat(30)));
    let expansion = rewriter.expand(ORG, Some(&long), &[Recipient::new(long.clone())]);
    assert_eq!(expansion.sender, Some(long));
    assert!(
        expansion.problems[0].contains("the sender stays as it is: the pattern"),
        "{:?}",
        expansion.problems
    );
    assert!(expansion.problems[0].ends_with("the part before the @ is longer than 64 octets"));
    assert_eq!(expansion.refused[0].status, EnhancedStatus::new(5, 3, 5));
}

#[test]
fn senders_are_rewritten_once_by_the_first_pattern() {
    let mut rules = rules(&["ann@in.example: no@x.example"]);
    let sender =
        |pattern: &str, replace: &str, org| Rewrite::parse(pattern, replace, false, true, org).unwrap();
    rules.rewrites.push(sender("(.+)@in.example", "$1@global.example", None));
    rules.rewrites.push(sender("ann@(.+)", "ann.lee@$1", Some(ORG)));
    let rewriter = Rewriter::compile(rules).unwrap();
    let rewritten = |org, text: &str| {
        let expansion = rewriter.expand(org, Some(&address(text)), &[]);
        (expansion.sender.map(|s| s.to_string()).unwrap_or_default(), expansion.sender_rewritten)
    };
    assert_eq!(rewritten(ORG, "ann@in.example"), ("ann.lee@in.example".to_owned(), true));
    assert_eq!(rewritten(ORG, "bob@in.example"), ("bob@global.example".to_owned(), true));
    assert_eq!(rewritten(OrgId(8), "ann@in.example"), ("ann@global.example".to_owned(), true));
    assert_eq!(rewritten(ORG, "bob@out.example"), ("bob@out.example".to_owned(), false));
    let null = rewriter.expand(ORG, None, &[]);
    assert_eq!((null.sender, null.sender_rewritten), (None, false));
    assert_eq!(to(&rewriter, "bob@in.example"), ["bob@in.example"], "recipients are not meant");
}

#[test]
fn duplicates_that_aliases_make_are_delivered_once() {
    let rewriter =
        rewriter(&["a@d.example: x@x.example y@x.example", "b@d.example: y@x.example z@x.example"]);
    let expected = [(0, "x@x.example"), (0, "y@x.example"), (1, "z@x.example")];
    assert_eq!(became(&rewriter, &["a@d.example", "b@d.example"]), expected.map(|(n, a)| (n, a.to_owned())));
    let both = expand(&rewriter, &["a@d.example", "x@x.example", "b@d.example"]).recipients;
    let both: Vec<_> = both.iter().map(|e| (e.from, e.also.clone(), e.recipient.address.as_str())).collect();
    assert_eq!(
        both,
        [(0, vec![2], "y@x.example"), (1, vec![0], "x@x.example"), (2, vec![], "z@x.example")],
        "who was named directly keeps the direct way"
    );
    let twice = became(&rewriter, &["x@x.example", "x@x.example"]);
    assert_eq!(twice.len(), 2, "what the client names twice stays as it is");
}

#[test]
fn wishes_about_reports_follow_rfc_3461() {
    let rewriter = rewriter(&["all@d.example: x@x.example y@x.example", "one@d.example: x@z.example"]);
    let mut all = Recipient::new(address("all@d.example"));
    all.notify = "SUCCESS,FAILURE".parse().unwrap();
    let mut one = Recipient::new(address("one@d.example"));
    one.notify = "SUCCESS".parse().unwrap();
    one.orcpt = Some("rfc822;first@f.example".to_owned());
    let expansion = rewriter.expand(ORG, None, &[all.clone(), one.clone()]);
    assert_eq!(
        expansion.opened,
        [Opened { from: 0, alias: all, count: 2 }],
        "a report with the action expanded"
    );
    let failure = Notify::On { success: false, failure: true, delay: false };
    for member in &expansion.recipients[..2] {
        assert_eq!(member.recipient.notify, failure);
        assert_eq!(member.recipient.orcpt.as_deref(), Some("rfc822;all@d.example"));
        assert!(member.forwarded);
    }
    let single = &expansion.recipients[2].recipient;
    assert_eq!((single.notify, &single.orcpt), (one.notify, &one.orcpt), "parameters go along");
}

#[test]
fn one_that_stands_twice_is_told_at_once() {
    let twice = rules(&["a@d.example: x@x.example", "A@D.example: y@x.example"]);
    assert_eq!(Rewriter::compile(twice).unwrap_err(), RuleError::Twice("A@d.example".to_owned()));
    let mut apart = rules(&["@d.example: x@x.example"]);
    apart.aliases.push(of_org(apart.aliases[0].clone(), ORG));
    assert!(Rewriter::compile(apart).is_ok(), "everyone's and an organisation's");
    assert!(Rewriter::compile(rules(&[])).unwrap().is_empty());
}

fn any_alias() -> impl Strategy<Value = Alias> {
    let target = "[a-d]@[def]\\.example|@[def]\\.example";
    let org = proptest::option::of(Just(ORG));
    ("[a-d]@[de]\\.example|@[de]\\.example", proptest::collection::vec(target, 1..4), org)
        .prop_map(|(from, to, org)| Alias::parse(&from, &to, org).unwrap())
}

fn any_rewrite() -> impl Strategy<Value = Rewrite> {
    let patterns = ["(.+)@d.example", "a@(.+)", "(.)(.*)@(e|f).example", "b.*@.*"];
    let replacements = ["$0$0", "c@f.example", "b$0", "a@d.example"];
    (0..patterns.len(), 0..replacements.len(), proptest::option::of(Just(ORG)))
        .prop_map(move |(p, r, org)| Rewrite::parse(patterns[p], replacements[r], true, true, org).unwrap())
}

proptest! {
    #[test]
    fn whatever_the_rules_it_ends_and_loses_nobody(
        aliases in proptest::collection::vec(any_alias(), 0..12),
        rewrites in proptest::collection::vec(any_rewrite(), 0..4),
        names in proptest::collection::vec("[a-e]@[d-g]\\.example", 1..12),
        most in 0usize..20,
        depth in 1usize..12,
    ) {
        let mut seen = HashSet::new();
        let aliases = aliases.into_iter().filter(|a| seen.insert((a.org, a.name()))).collect();
        let rules = Rules { aliases, rewrites, depth, recipients: most };
        let rewriter = Rewriter::compile(rules.clone()).unwrap();
        let recipients: Vec<Recipient> = names.iter().map(|n| Recipient::new(address(n))).collect();
        let sender = &recipients[0].address;
        let expansion = rewriter.expand(ORG, Some(sender), &recipients);
        prop_assert_eq!(&rewriter.expand(ORG, Some(sender), &recipients), &expansion, "the same every time");
        prop_assert_eq!(&Rewriter::compile(rules).unwrap().expand(ORG, Some(sender), &recipients), &expansion);
        prop_assert!(expansion.recipients.len() <= recipients.len() + most);
        prop_assert!(expansion.sender.is_some());
        for (number, recipient) in recipients.iter().enumerate() {
            let number = u16::try_from(number).unwrap();
            let delivered = expansion.recipients.iter().any(|e| e.from == number || e.also.contains(&number));
            let refused = expansion.refused.iter().any(|r| r.from == number && !r.words.is_empty());
            prop_assert!(delivered != refused, "{:?} of {:?}", recipient, expansion);
        }
        let mut forwarded = HashSet::new();
        for expanded in expansion.recipients.iter().filter(|e| e.forwarded) {
            prop_assert!(forwarded.insert(expanded.recipient.address.clone()), "twice: {:?}", expanded);
        }
        let _ = rewriter.warnings();
    }
}
