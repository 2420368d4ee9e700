//! Where the layouts of a host and a plugin part ways, in one line.
//!
//! `abi_stable` decides whether two layouts fit, and explains itself on pages when they do not. This
//! follows both from their roots to the first difference, depth first, and tells its path in the
//! words of the interface: `enqueue(_).task.priority` is a field of what the operation takes,
//! `claim().tasks.priority` one of what it answers. Boxes, lists and other wrappers leave no trace
//! in a path.

use std::{collections::HashSet, fmt};

use abi_stable::{
    std_types::{RStr, UTypeId},
    type_layout::{TLData, TLEnum, TLField, TLFunction, TLPrefixType, TypeLayout},
};

type Layout = &'static TypeLayout;

/// Finds the first difference between two layouts.
///
/// A field or method behind the end of a prefix type is none as long as there is another: it may
/// have been added by the newer of the two.
pub(super) fn first_difference(host: Layout, plugin: Layout) -> Option<Difference> {
    // The reference to a module is a wrapper, too.
    let interface = host.generics().type_params().first().map_or(host, |module| module());
    let package = interface.package();
    let mut walk = Walk { package, path: Vec::new(), seen: HashSet::new(), missing: None };
    walk.types(Both { host, plugin }).err().or(walk.missing)
}

/// What one side has and the other has not.
#[derive(Debug)]
pub(super) struct Difference {
    path: String,
    plugin: String,
    host: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { path, plugin, host } = self;
        let separator = if path.is_empty() { "" } else { ": " };
        write!(f, "{path}{separator}this plugin has {plugin}, this host has {host}")
    }
}

/// The same of either side.
#[derive(Clone, Copy)]
struct Both<T> {
    host: T,
    plugin: T,
}

impl<T> Both<T> {
    fn map<U>(self, mut change: impl FnMut(T) -> U) -> Both<U> {
        Both { host: change(self.host), plugin: change(self.plugin) }
    }
}

impl<T: PartialEq> Both<T> {
    fn differ(&self) -> bool {
        self.host != self.plugin
    }
}

impl<T> Both<Vec<T>> {
    /// Pairs the items by their places, as far as both sides have one.
    fn pairs(self) -> impl Iterator<Item = Both<T>> {
        self.host.into_iter().zip(self.plugin).map(|(host, plugin)| Both { host, plugin })
    }
}

/// A step on the way from the root.
enum Step {
    /// A field, or the variant of an enum that has it.
    Field(&'static str),
    /// Into a parameter of a function.
    Parameter(&'static str, &'static str),
    /// Into what a function answers.
    Answer(&'static str),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Field(name) => f.write_str(name),
            Step::Parameter(function, name) => write!(f, "{function}({name})"),
            Step::Answer(function) => write!(f, "{function}()"),
        }
    }
}

struct Walk {
    /// The package of the interface. Only its types are named in paths, the others are wrappers.
    package: RStr<'static>,
    path: Vec<Step>,
    /// What was compared, or is being compared: types may contain themselves.
    seen: HashSet<(UTypeId, UTypeId)>,
    /// The first field or method that only one side has behind the end of the other's.
    missing: Option<Difference>,
}

type Compared = Result<(), Difference>;

impl Walk {
    fn types(&mut self, types: Both<Layout>) -> Compared {
        let ids = types.map(TypeLayout::get_utypeid);
        if !self.seen.insert((ids.host, ids.plugin)) {
            return Ok(());
        }
        if types.map(TypeLayout::name).differ() {
            return self.found(types.map(written));
        }
        let packages = types.map(TypeLayout::package);
        if packages.differ() {
            return self.found(types.map(|of| format!("the `{}` of {}", of.name(), of.package())));
        }
        check_versions(types)?;
        let constants = types.map(|of| format!("{:?}", of.generics().const_params()));
        if constants.differ() {
            return self.found(types.map(written));
        }
        for parameters in types.map(|of| of.generics().type_params().to_vec()).pairs() {
            self.types(parameters.map(|layout| layout()))?;
        }
        self.contents(types)?;
        for phantoms in types.map(|of| of.phantom_fields().to_vec()).pairs() {
            self.types(phantoms.map(|field| field.layout()))?;
        }
        self.sizes(types)
    }

    fn contents(&mut self, types: Both<Layout>) -> Compared {
        let data = types.map(|of| of.data());
        match (data.host, data.plugin) {
            (TLData::Struct { fields: host }, TLData::Struct { fields: plugin })
            | (TLData::Union { fields: host }, TLData::Union { fields: plugin }) => {
                let fields = Both { host, plugin }.map(|fields| fields.to_vec());
                self.names(types, "field", &fields)?;
                self.fields(types, fields)
            }
            (TLData::Enum(host), TLData::Enum(plugin)) => {
                self.variants(types, Both { host, plugin })
            }
            (TLData::PrefixType(host), TLData::PrefixType(plugin)) => {
                self.prefixes(types, Both { host, plugin })
            }
            // The name of a primitive type says it all, and an opaque one has its size only.
            _ => {
                let kinds = types.map(|of| format!("{:?}", of.data_discriminant()));
                if kinds.differ() { self.found(kinds) } else { Ok(()) }
            }
        }
    }

    fn variants(&mut self, types: Both<Layout>, enums: Both<TLEnum>) -> Compared {
        let names = enums.map(|of| of.variant_names_iter().collect::<Vec<_>>());
        let longest = names.host.len().max(names.plugin.len());
        self.lists(types, "variant", &names, longest)?;
        let numbers = enums.map(|of| format!("{:?}", of.discriminants));
        if numbers.differ() {
            let name = owner(types.host);
            return self.found(numbers.map(|numbers| format!("`{name}` numbered {numbers}")));
        }
        let mut fields = enums.map(|of| of.fields.iter());
        let counts = enums.map(|of| of.field_count.to_vec());
        for (at, (count, variant)) in counts.pairs().zip(names.host).enumerate() {
            let of_variant: Both<Vec<TLField>> = Both {
                host: fields.host.by_ref().take(count.host.into()).collect(),
                plugin: fields.plugin.by_ref().take(count.plugin.into()).collect(),
            };
            // The first variant of a wrapper is what it is about: `Ok`, `Some`, `One`.
            let is_tuple = of_variant.host.first().is_some_and(|field| is_place(field.name()));
            let is_step = if is_tuple { at > 0 } else { self.is_named(types) };
            self.at(is_step.then_some(Step::Field(variant)), |walk| {
                walk.names(types, "field", &of_variant)?;
                walk.fields(types, of_variant)
            })?;
        }
        Ok(())
    }

    fn prefixes(&mut self, types: Both<Layout>, prefixes: Both<TLPrefixType>) -> Compared {
        let fields = prefixes.map(|of| of.fields.to_vec());
        let names = field_names(&fields);
        let common = names.host.len().min(names.plugin.len());
        self.lists(types, "method", &names, common)?;
        if self.missing.is_none() {
            let longest = names.host.len().max(names.plugin.len());
            self.missing = self.lists(types, "method", &names, longest).err();
        }
        let ends = prefixes.map(|of| of.first_suffix_field);
        if ends.differ() {
            let name = owner(types.host);
            return self.found(ends.map(|end| format!("`{name}` with {end} fields in its prefix")));
        }
        self.fields(types, fields)
    }

    fn names(&self, types: Both<Layout>, what: &str, fields: &Both<Vec<TLField>>) -> Compared {
        let names = field_names(fields);
        let longest = names.host.len().max(names.plugin.len());
        self.lists(types, what, &names, longest)
    }

    /// Compares the first names of fields, methods or variants, in their order.
    fn lists(
        &self,
        types: Both<Layout>,
        what: &str,
        names: &Both<Vec<&'static str>>,
        count: usize,
    ) -> Compared {
        let of = owner(types.host);
        let here = |at| Both { host: names.host.get(at), plugin: names.plugin.get(at) };
        let Some(both) = (0..count).map(here).find(Both::differ) else { return Ok(()) };
        let only_host = both.host.filter(|name| !names.plugin.contains(name));
        let only_plugin = both.plugin.filter(|name| !names.host.contains(name));
        let (plugin, host) = match (only_host, only_plugin, both) {
            (Some(ours), Some(theirs), _) => {
                (format!("`{of}` with the {what} `{theirs}`"), format!("`{ours}` in its place"))
            }
            (Some(ours), None, _) => {
                (format!("`{of}` without the {what} `{ours}`"), "it with that one".into())
            }
            (None, Some(theirs), _) => {
                (format!("`{of}` with a {what} `{theirs}`"), "it without that one".into())
            }
            (None, None, Both { host: Some(ours), plugin: Some(theirs) }) => (
                format!("`{of}` with the {what} `{theirs}` before `{ours}`"),
                "them the other way round".into(),
            ),
            // One name more on one side, and it is on the other side, too: it is there twice.
            (None, None, _) => (format!("`{of}` with other {what}s"), "its own".into()),
        };
        self.found(Both { host, plugin })
    }

    /// Compares fields of the same names.
    fn fields(&mut self, types: Both<Layout>, fields: Both<Vec<TLField>>) -> Compared {
        let is_named = self.is_named(types);
        for field in fields.pairs() {
            let name = Some(field.host.name()).filter(|name| is_named && !is_place(name));
            let functions = field.map(|field| field.function_range().iter().collect::<Vec<_>>());
            for functions in functions.pairs() {
                self.functions(name, functions)?;
            }
            self.at(name.map(Step::Field), |walk| walk.types(field.map(|field| field.layout())))?;
        }
        Ok(())
    }

    fn functions(&mut self, name: Option<&'static str>, both: Both<TLFunction>) -> Compared {
        let parameters = both.map(|of| of.param_type_layouts.iter().collect::<Vec<_>>());
        let counts = Both { host: parameters.host.len(), plugin: parameters.plugin.len() };
        let unsafety = both.map(|of| of.fn_qualifs.is_unsafe());
        if counts.differ() || unsafety.differ() {
            let signatures = both.map(|of| of.to_string().trim().to_owned());
            return self.at(name.map(Step::Field), |walk| walk.found(signatures));
        }
        let names = both.host.param_names.as_str().split(',').map(|name| match name {
            // The macro of `abi_stable` drops the names of a trait's parameters.
            "" | "param_0" => "_",
            name => name,
        });
        for (parameter, called) in parameters.pairs().zip(names) {
            let parameter = parameter.map(|layout| layout());
            let step = name.map(|name| Step::Parameter(name, called));
            self.at(step, |walk| walk.types(parameter))?;
        }
        let answers = both.map(|of| of.return_type_layout().map(|layout| layout()));
        let step = name.map(Step::Answer);
        self.at(step, |walk| match (answers.host, answers.plugin) {
            (Some(host), Some(plugin)) => walk.types(Both { host, plugin }),
            (None, None) => Ok(()),
            _ => walk.found(answers.map(|answer| answer.map_or("nothing".into(), written))),
        })
    }

    /// What is left when all parts are the same: how they are put together.
    fn sizes(&self, types: Both<Layout>) -> Compared {
        let name = owner(types.host);
        let representations = types.map(|of| format!("{:?}", of.repr_attr()));
        if representations.differ() {
            return self.found(representations.map(|repr| format!("`{name}` laid out as {repr}")));
        }
        // The longer of two prefix types is the one with more fields.
        if types.host.is_prefix_kind() {
            return Ok(());
        }
        let sizes = types.map(|of| (of.size(), of.alignment()));
        if sizes.differ() {
            return self.found(sizes.map(|(size, alignment)| {
                format!("`{name}` of {size} bytes, aligned to {alignment}")
            }));
        }
        Ok(())
    }

    fn is_named(&self, types: Both<Layout>) -> bool {
        types.host.package() == self.package
    }

    fn at(&mut self, step: Option<Step>, compare: impl FnOnce(&mut Walk) -> Compared) -> Compared {
        let depth = self.path.len();
        self.path.extend(step);
        let compared = compare(self);
        self.path.truncate(depth);
        compared
    }

    fn found(&self, Both { host, plugin }: Both<String>) -> Compared {
        Err(Difference { path: self.written_path(), plugin, host })
    }

    /// What an answer can do is known by its own name: `claim()` rather than `open().claim()`.
    fn written_path(&self) -> String {
        let (mut begin, mut is_answer) = (0, false);
        for (at, step) in self.path.iter().enumerate() {
            if is_answer && !matches!(step, Step::Field(_)) {
                begin = at;
            }
            match step {
                Step::Field(_) => {}
                Step::Parameter(..) => is_answer = false,
                Step::Answer(_) => is_answer = true,
            }
        }
        let steps = self.path.iter().skip(begin);
        steps.map(ToString::to_string).collect::<Vec<_>>().join(".")
    }
}

/// Types of versions that do not go together are different types, whatever they contain.
fn check_versions(types: Both<Layout>) -> Compared {
    let versions = types.map(TypeLayout::package_version);
    match (versions.host.parsed(), versions.plugin.parsed()) {
        (Ok(host), Ok(plugin)) if !host.is_loosely_compatible(plugin) => {
            let (host, plugin) = (host.to_string(), plugin.to_string());
            Err(Difference { path: types.host.package().to_string(), plugin, host })
        }
        _ => Ok(()),
    }
}

fn field_names(fields: &Both<Vec<TLField>>) -> Both<Vec<&'static str>> {
    let names = |fields: &[TLField]| fields.iter().map(TLField::name).collect();
    Both { host: names(&fields.host), plugin: names(&fields.plugin) }
}

/// Whether a field of a tuple is called by its place, `0` or `field_0`, which says nothing.
fn is_place(name: &str) -> bool {
    let place = name.strip_prefix("field_").unwrap_or(name);
    place.bytes().all(|byte| byte.is_ascii_digit())
}

/// The type as one would write it.
fn written(of: Layout) -> String {
    let written = of.full_type().to_string();
    written.split_whitespace().collect::<Vec<_>>().join(" ").replace("& ", "&")
}

/// Whose fields they are. A trait's table of methods is called after the trait.
fn owner(of: Layout) -> String {
    let module = of.mod_path().to_string();
    let of_trait = module.rsplit("::").next().and_then(|name| name.strip_suffix("_trait"));
    of_trait.filter(|_| of.is_prefix_kind()).unwrap_or(of.name()).to_owned()
}

#[cfg(test)]
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    non_local_definitions,
    clippy::undocumented_unsafe_blocks,
    reason = "the macros of abi_stable generate it"
)]
mod tests {
    use abi_stable::{
        StableAbi, sabi_trait,
        std_types::{RBox, ROption, RResult, RString, RVec},
    };

    use super::*;

    /// An interface with one record, `Task`, that a module called here has.
    macro_rules! interface {
        ($name:ident { $($task:tt)* } $(+ $($later:tt)*)?) => {
            mod $name {
                use super::*;

                $($task)*

                #[repr(C)]
                #[derive(StableAbi)]
                pub struct Placed {
                    pub place: u64,
                    pub task: RBox<Task>,
                }

                #[repr(C)]
                #[derive(StableAbi)]
                pub struct Claimed {
                    pub tasks: RVec<RBox<Task>>,
                }

                #[sabi_trait]
                pub trait Instance: Send + 'static {
                    fn save(&self, batch: RVec<Placed>) -> RResult<(), RString>;
                    #[sabi(last_prefix_field)]
                    fn claim(&self, max: u32) -> RResult<Claimed, RString>;
                    $($($later)*)?
                }

                #[repr(C)]
                #[derive(StableAbi)]
                #[sabi(kind(Prefix(prefix_ref = ModuleRef)))]
                pub struct Module {
                    #[sabi(last_prefix_field)]
                    pub open: extern "C" fn(config: RString) -> Instance_TO<RBox<()>>,
                }
            }
        };
    }

    /// A `Task` of one field, in an interface of its own.
    macro_rules! tasks {
        ($($name:ident { $($field:tt)* })*) => {
            $(interface! { $name {
                #[repr(C)]
                #[derive(StableAbi)]
                pub struct Task { $($field)* }
            } })*
        };
    }

    tasks! {
        plain { pub id: RString, pub priority: u8 }
        same { pub id: RString, pub priority: u8 }
        retyped { pub id: RString, pub priority: i32 }
        longer { pub id: RString, pub priority: u8, pub color: u32 }
        between { pub id: RString, pub color: u32, pub priority: u8 }
        renamed { pub id: RString, pub rank: u8 }
        reordered { pub priority: u8, pub id: RString }
        bytes { pub id: RVec<u8>, pub priority: u8 }
        words { pub id: RVec<u16>, pub priority: u8 }
        chain { pub id: RString, pub next: ROption<RBox<Task>>, pub priority: u8 }
        other_chain { pub id: RString, pub next: ROption<RBox<Task>>, pub priority: u16 }
    }

    interface! { grown {
        #[repr(C)]
        #[derive(StableAbi)]
        pub struct Task { pub id: RString, pub priority: u8 }
    } + fn health(&self) -> bool { let claimed = self.claim(0); claimed.is_ok() } }

    interface! { moved {
        #[repr(C)]
        #[derive(StableAbi)]
        pub struct Task { pub id: RString, pub priority: i32 }
    } + fn health(&self) -> bool { let claimed = self.claim(0); claimed.is_ok() } }

    /// A `Task` of one field, whose type is an enum.
    macro_rules! statuses {
        ($($name:ident { $($variants:tt)* })*) => {
            $(interface! { $name {
                #[repr(C)]
                #[derive(StableAbi)]
                pub struct Task { pub status: Status }

                #[repr(u8)]
                #[derive(StableAbi)]
                pub enum Status { $($variants)* }
            } })*
        };
    }

    statuses! {
        two { Pending, Failed { after: u32 } }
        three { Pending, Paused, Failed { after: u32 } }
        other_names { Pending, Dead { after: u32 } }
        other_fields { Pending, Failed { after: u64 } }
        other_numbers { Pending = 1, Failed { after: u32 } = 2 }
    }

    macro_rules! difference {
        ($host:ident, $plugin:ident) => {
            first_difference($host::ModuleRef::LAYOUT, $plugin::ModuleRef::LAYOUT)
                .map(|difference| difference.to_string())
                .unwrap_or_default()
        };
    }

    #[test]
    fn layouts_that_are_the_same_do_not_differ() {
        assert_eq!(difference!(plain, plain), "");
        assert_eq!(difference!(plain, same), "");
    }

    #[test]
    fn a_field_of_another_type_is_named_by_its_path() {
        let said = "save(_).task.priority: this plugin has i32, this host has u8";
        assert_eq!(difference!(plain, retyped), said);
    }

    #[test]
    fn a_path_begins_at_the_root_that_was_compared() {
        let said = first_difference(plain::Claimed::LAYOUT, retyped::Claimed::LAYOUT);
        let said = said.map(|difference| difference.to_string());
        let wanted = "tasks.priority: this plugin has i32, this host has u8";
        assert_eq!(said.as_deref(), Some(wanted));
    }

    #[test]
    fn fields_that_are_new_gone_renamed_or_moved_are_told_apart() {
        let at = "save(_).task: this plugin has `Task`";
        for (found, said) in [
            (difference!(plain, longer), "with a field `color`, this host has it without that one"),
            (
                difference!(plain, between),
                "with a field `color`, this host has it without that one",
            ),
            (
                difference!(longer, plain),
                "without the field `color`, this host has it with that one",
            ),
            (
                difference!(plain, renamed),
                "with the field `rank`, this host has `priority` in its place",
            ),
            (
                difference!(plain, reordered),
                "with the field `priority` before `id`, this host has them the other way round",
            ),
        ] {
            assert_eq!(found, format!("{at} {said}"));
        }
    }

    #[test]
    fn a_wrapper_leaves_no_trace_in_a_path() {
        let said = "save(_).task.id: this plugin has u16, this host has u8";
        assert_eq!(difference!(bytes, words), said);
    }

    #[test]
    fn a_record_that_contains_itself_is_compared_once() {
        assert_eq!(difference!(chain, chain), "");
        let said = "save(_).task.priority: this plugin has u16, this host has u8";
        assert_eq!(difference!(chain, other_chain), said);
    }

    #[test]
    fn variants_and_their_fields_are_compared() {
        let at = "save(_).task.status";
        for (found, said) in [
            (
                difference!(two, three),
                ": this plugin has `Status` with a variant `Paused`, this host has it without that one",
            ),
            (
                difference!(two, other_names),
                ": this plugin has `Status` with the variant `Dead`, this host has `Failed` in its place",
            ),
            (
                difference!(two, other_fields),
                ".Failed.after: this plugin has u64, this host has u32",
            ),
            (
                difference!(two, other_numbers),
                ": this plugin has `Status` numbered [1, 2], this host has `Status` numbered [0, 1]",
            ),
        ] {
            assert_eq!(found, format!("{at}{said}"));
        }
    }

    #[test]
    fn a_later_method_is_a_difference_only_if_there_is_no_other() {
        let said = "save(_).task.priority: this plugin has i32, this host has u8";
        assert_eq!(difference!(plain, moved), said);
        let said = "this plugin has `Instance` without the method `health`, this host has it with that one";
        assert!(difference!(grown, plain).ends_with(said), "{}", difference!(grown, plain));
    }

    #[test]
    fn what_an_operation_answers_is_named_by_the_operation() {
        let found = first_difference(one::Answers::LAYOUT, other::Answers::LAYOUT);
        let found = found.map(|difference| difference.to_string()).unwrap_or_default();
        assert_eq!(found, "count().total: this plugin has u64, this host has u32");
    }

    macro_rules! answers {
        ($($name:ident: $total:ty),*) => {
            $(mod $name {
                use super::*;

                #[repr(C)]
                #[derive(StableAbi)]
                pub struct Count {
                    pub total: $total,
                }

                #[repr(C)]
                #[derive(StableAbi)]
                pub struct Answers {
                    pub count: extern "C" fn(of: RString) -> RResult<Count, RString>,
                }
            })*
        };
    }

    answers! { one: u32, other: u64 }

    #[test]
    fn of_the_variants_of_a_wrapper_only_the_first_leaves_no_trace() {
        #[repr(u8)]
        #[derive(StableAbi)]
        enum Reply<T, E> {
            Ok(T),
            Err(E),
        }
        let said = first_difference(
            <Reply<one::Count, RString>>::LAYOUT,
            <Reply<other::Count, RString>>::LAYOUT,
        );
        let wanted = "total: this plugin has u64, this host has u32";
        assert_eq!(said.map(|difference| difference.to_string()).as_deref(), Some(wanted));
        let said =
            first_difference(<Reply<u8, one::Count>>::LAYOUT, <Reply<u8, other::Count>>::LAYOUT);
        let wanted = "Err.total: this plugin has u64, this host has u32";
        assert_eq!(said.map(|difference| difference.to_string()).as_deref(), Some(wanted));
    }
}
