"""The public API of a crate as lines, from the JSON that rustdoc writes. scripts/api says what they show."""

import collections
import json

# Those that every type is asked for.
AUTO_TRAITS = ["Send", "Sync", "Unpin"]
# Others that need no path, because there is one of the name.
KNOWN_TRAITS = set("Clone Copy Debug Default Display Drop Eq Hash Ord PartialEq PartialOrd".split())


class Unreadable(Exception):
    """rustdoc's JSON has what the script does not know, or there is none."""


def the_one(value, what):
    """Name and content of what serde writes for an enum."""
    if isinstance(value, str):
        return value, None
    if isinstance(value, dict) and len(value) == 1:
        return next(iter(value.items()))
    raise Unreadable(f"rustdoc's JSON has a {what} that scripts/api does not know: {json.dumps(value)[:200]}")


class Api:
    """The public API of one crate. Its text can be made once."""

    def __init__(self, crate):
        self.index, self.paths = crate["index"], crate["paths"]
        self.root = self.index[str(crate["root"])]
        # The shortest path of each item, filled breadth first; and further ones.
        self.path_of, self.again = {}, {}
        self.lines, self.uses, self.modules, self.elsewhere = [], [], [], {}
        self.walk()

    def item(self, id_):
        return self.index.get(str(id_))

    def walk(self):
        queue = collections.deque([(self.root["name"], self.root["id"])])
        while queue:
            path, id_ = queue.popleft()
            item = self.item(id_)
            if id_ in self.path_of:
                if path != self.path_of[id_]:
                    self.again[path] = id_
                continue
            self.path_of[id_] = path
            kind, inner = the_one(item["inner"], "item")
            self.modules.append((path, id_))
            if kind == "module":
                queue.extend(sorted(self.members(path, inner["items"], {id_})))

    def public_paths(self):
        """{where the code defines an item: where other crates find it}"""
        return {"::".join(self.paths[str(id_)]["path"]): path for id_, path in self.path_of.items() if str(id_) in self.paths}

    def text(self, elsewhere):
        """All lines. `elsewhere` has the public paths of other crates, so that no line names their private modules."""
        self.elsewhere = elsewhere
        for path, id_ in sorted(self.modules):
            self.emit(path, self.item(id_))
        again = [f"pub use {path} = {self.path_of[id_]}" for path, id_ in self.again.items()]
        return "".join(f"{line}\n" for line in self.lines + sorted(self.uses + again))

    def members(self, path, ids, seen):
        """(path, id) of what a module has, through its re-exports."""
        for id_ in ids:
            item = self.item(id_)
            if item is None:
                continue
            kind, inner = the_one(item["inner"], "item")
            if kind == "use":
                target = self.item(inner["id"]) if inner["id"] is not None else None
                is_module = target is not None and "module" in target["inner"]
                if inner["is_glob"] and is_module:
                    if target["id"] not in seen:
                        yield from self.members(path, target["inner"]["module"]["items"], seen | {target["id"]})
                elif target is None or inner["is_glob"]:
                    glob = "::*" if inner["is_glob"] else ""
                    name = "" if inner["is_glob"] else f"::{inner['name']}"
                    self.uses.append(f"pub use {path}{name} = {inner['source']}{glob}")
                else:
                    yield f"{path}::{inner['name']}", target["id"]
            elif kind != "impl":
                yield f"{path}::{item['name']}", id_

    # --- Items.

    def emit(self, path, item):
        kind, inner = the_one(item["inner"], "item")
        before = "".join(f"#[{attribute}] " for attribute in self.attributes(item)) + "pub "
        if kind in ("struct", "union", "enum"):
            self.lines.append(f"{before}{kind} {path}{self.generics(inner['generics'])}{self.where(inner['generics'])}")
            self.implemented(path, inner)
            self.parts(path, kind, inner)
            self.methods(path, inner)
        elif kind == "trait":
            head = ("unsafe " if inner["is_unsafe"] else "") + ("auto " if inner["is_auto"] else "")
            bounds = self.bounds(inner["bounds"], ": ")
            where = self.where(inner["generics"])
            self.lines.append(f"{before}{head}trait {path}{self.generics(inner['generics'])}{bounds}{where}")
            for id_ in inner["items"]:
                member = self.item(id_)
                if member is not None:
                    self.lines.append("    " + self.associated(path, member))
        elif kind == "function":
            self.lines.append(before + self.function(path, inner))
        elif kind == "constant":
            self.lines.append(f"{before}const {path}: {self.type(inner['type'])}{self.value(inner['const']['expr'])}")
        elif kind == "static":
            mutable = "mut " if inner["is_mutable"] else ""
            self.lines.append(f"{before}static {mutable}{path}: {self.type(inner['type'])}")
        elif kind == "type_alias":
            generics = inner["generics"]
            self.lines.append(
                f"{before}type {path}{self.generics(generics)} = {self.type(inner['type'])}{self.where(generics)}")
        elif kind in ("macro", "proc_macro"):
            self.lines.append(f"{before}macro {path}!")
        elif kind == "module":
            self.lines.append(f"{before}mod {path}")
        elif kind == "primitive":
            pass
        else:
            raise Unreadable(f"rustdoc's JSON has a kind of item that scripts/api does not know: {kind}")

    def attributes(self, item):
        for attribute in item["attrs"]:
            name, content = the_one(attribute, "attribute")
            if name in ("non_exhaustive", "must_use"):
                yield name
            elif name == "repr" and content:
                yield f"repr({content.get('kind')})"

    def parts(self, path, kind, inner):
        """The fields of a struct or union, the variants of an enum."""
        if kind == "enum":
            for id_ in inner["variants"]:
                variant = self.item(id_)
                if variant is None:
                    continue
                # An enum of its own in the JSON, like a struct's kind.
                content = variant["inner"]["variant"]
                shape, fields = the_one(content["kind"], "variant")
                value = f" = {content['discriminant']['expr']}" if content["discriminant"] else ""
                marked = "".join(f"#[{attribute}] " for attribute in self.attributes(variant))
                self.lines.append(f"    {marked}{path}::{variant['name']}{self.fields(shape, fields)}{value}")
            if inner["has_stripped_variants"]:
                self.lines.append(f"    {path}::.. (hidden variants)")
            return
        shape, fields = the_one(inner["kind"], "struct") if kind == "struct" else ("plain", inner)
        if shape == "unit":
            return
        if shape == "tuple":
            if any(id_ is not None for id_ in fields):
                self.lines.append(f"    {path}{self.fields(shape, fields)}")
            return
        for id_ in fields["fields"]:
            field = self.item(id_)
            self.lines.append(f"    pub {path}::{field['name']}: {self.type(field['inner']['struct_field'])}")
        is_hidden = fields.get("has_stripped_fields", False)
        if is_hidden and fields["fields"]:
            self.lines.append(f"    {path}::.. (private fields)")

    def fields(self, shape, fields):
        if shape in ("plain", "unit") or fields is None:
            return ""
        if shape == "tuple":
            shown = [self.type(self.item(id_)["inner"]["struct_field"]) if id_ is not None else "_" for id_ in fields]
            return f"({', '.join(shown)})"
        items = [self.item(id_) for id_ in fields["fields"]]
        shown = [f"{item['name']}: {self.type(item['inner']['struct_field'])}" for item in items]
        return f" {{ {', '.join(shown + ['..'] * fields['has_stripped_fields'])} }}"

    def implemented(self, path, inner):
        """The traits of a type: a list, and a line for each that needs more words."""
        names, auto, whole = set(), set(), []
        for id_ in inner["impls"]:
            item = self.item(id_)
            # A blanket implementation says nothing of this type.
            if item is None or item["inner"]["impl"]["blanket_impl"] is not None:
                continue
            impl = item["inner"]["impl"]
            if impl["trait"] is None:
                continue
            name = impl["trait"]["path"].rsplit("::", 1)[-1]
            if impl["is_synthetic"] or impl["is_negative"]:
                if not impl["is_negative"]:
                    auto.add(name)
                continue
            if name in AUTO_TRAITS:
                auto.add(name)
            if name.startswith("Structural"):
                continue
            generics = impl["generics"]
            members = [self.associated("", member) for member in map(self.item, impl["items"])
                       if member is not None and "function" not in member["inner"]]
            if any("lifetime" not in param["kind"] for param in generics["params"]) or generics["where_predicates"]:
                text = f"impl{self.generics(generics)} {self.path(impl['trait'])} for {self.type(impl['for'])}"
                whole.append(text + self.where(generics) + (f" {{ {'; '.join(members)} }}" if members else ""))
            else:
                target = "" if "resolved_path" in impl["for"] else f" for {self.type(impl['for'])}"
                shown = name if name in KNOWN_TRAITS and not impl["trait"]["args"] else self.path(impl["trait"])
                names.add(shown + target + (f" {{ {'; '.join(members)} }}" if members else ""))
        names |= {f"!{name}" for name in AUTO_TRAITS if name not in auto}
        if names:
            self.lines.append("    traits " + ", ".join(sorted(names)))
        self.lines.extend(f"    {text}" for text in sorted(whole))

    def methods(self, path, inner):
        found = []
        for id_ in inner["impls"]:
            item = self.item(id_)
            impl = item["inner"]["impl"] if item else None
            if impl is None or impl["trait"] is not None:
                continue
            # What the type itself asks of its parameters is not said again.
            where = self.where(impl["generics"], True)
            where = "" if where == self.where(inner["generics"], True) else where
            args = (impl["for"].get("resolved_path") or {}).get("args")
            owner = path + self.arguments(args)
            for member_id in impl["items"]:
                member = self.item(member_id)
                if member is not None:
                    marked = "".join(f"#[{attribute}] " for attribute in self.attributes(member))
                    found.append(f"    {marked}pub {self.associated(owner, member)}{where}")
        self.lines.extend(sorted(found))

    def associated(self, owner, item):
        kind, inner = the_one(item["inner"], "item")
        name = f"{owner}::{item['name']}" if owner else item["name"]
        if kind == "function":
            return self.function(name, inner) + (" { .. }" if inner["has_body"] and item["visibility"] == "default" else "")
        if kind == "assoc_const":
            value = self.value(inner["value"])
            return f"const {name}: {self.type(inner['type'])}{value}"
        if kind == "assoc_type":
            value = f" = {self.type(inner['type'])}" if inner["type"] else ""
            return f"type {name}{self.generics(inner['generics'])}{self.bounds(inner['bounds'], ': ')}{value}"
        raise Unreadable(f"rustdoc's JSON has a kind of associated item that scripts/api does not know: {kind}")

    def value(self, text):
        """rustdoc writes _ for what it does not show."""
        return f" = {text}" if text not in (None, "_") else ""

    def function(self, name, inner):
        header = inner["header"]
        words = [word for word in ("const", "async", "unsafe") if header[f"is_{word}"]]
        abi, _ = the_one(header["abi"], "ABI")
        words += [f'extern "{abi}"'] if abi != "Rust" else []
        return f"{' '.join([*words, 'fn'])} {name}{self.generics(inner['generics'])}{self.signature(inner['sig'])}" + (
            self.where(inner["generics"]))

    def signature(self, sig):
        shown = [self.parameter(name, type_) for name, type_ in sig["inputs"]] + ["..."] * sig["is_c_variadic"]
        return f"({', '.join(shown)})" + (f" -> {self.type(sig['output'])}" if sig["output"] is not None else "")

    def parameter(self, name, type_):
        if name != "self":
            return self.type(type_)
        if type_ == {"generic": "Self"}:
            return "self"
        if (type_.get("borrowed_ref") or {}).get("type") == {"generic": "Self"}:
            reference = type_["borrowed_ref"]
            lifetime = f"{reference['lifetime']} " if reference["lifetime"] else ""
            return f"&{lifetime}{'mut ' * reference['is_mutable']}self"
        return f"self: {self.type(type_)}"

    # --- Generics, bounds and types.

    def generics(self, generics):
        shown = [text for text in map(self.declared, generics["params"]) if text]
        return f"<{', '.join(shown)}>" if shown else ""

    def declared(self, param, with_default=True):
        kind, inner = the_one(param["kind"], "parameter")
        if kind == "lifetime":
            return param["name"] + (f": {' + '.join(inner['outlives'])}" if inner["outlives"] else "")
        default = inner["default"] if with_default else None
        if kind == "const":
            return f"const {param['name']}: {self.type(inner['type'])}" + (f" = {default}" if default else "")
        # What `impl Trait` as a parameter makes is shown where it stands.
        if inner["is_synthetic"]:
            return ""
        return param["name"] + self.bounds(inner["bounds"], ": ") + (f" = {self.type(default)}" if default else "")

    def where(self, generics, with_parameters=False):
        shown = []
        for predicate in generics["where_predicates"]:
            kind, inner = the_one(predicate, "predicate")
            if kind == "bound_predicate":
                shown.append(self.higher(inner["generic_params"]) + self.type(inner["type"]) + self.bounds(inner["bounds"], ": "))
            elif kind == "lifetime_predicate":
                shown.append(f"{inner['lifetime']}: {' + '.join(inner['outlives'])}")
            elif kind == "eq_predicate":
                shown.append(f"{self.type(inner['lhs'])} = {self.term(inner['rhs'])}")
            else:
                raise Unreadable(f"rustdoc's JSON has a kind of predicate that scripts/api does not know: {kind}")
        if with_parameters:
            declared = (self.declared(param, False) for param in generics["params"])
            shown = [text for text in declared if ":" in text] + shown
        return f" where {', '.join(shown)}" if shown else ""

    def higher(self, params):
        return f"for<{', '.join(self.declared(param) for param in params)}> " if params else ""

    def bounds(self, bounds, before=""):
        shown = []
        for bound in bounds:
            kind, inner = the_one(bound, "bound")
            if kind == "trait_bound":
                modifier = {"none": "", "maybe": "?", "maybe_const": "~const "}[inner["modifier"]]
                shown.append(modifier + self.higher(inner["generic_params"]) + self.path(inner["trait"]))
            elif kind == "outlives":
                shown.append(inner)
            elif kind == "use":
                shown.append(f"use<{', '.join(next(iter(arg.values())) for arg in inner)}>")
            else:
                raise Unreadable(f"rustdoc's JSON has a kind of bound that scripts/api does not know: {kind}")
        return before + " + ".join(shown) if shown else ""

    def path(self, path):
        """Where the item can be found, rather than how the code names it."""
        known = self.path_of.get(path["id"])
        if known is None:
            summary = self.paths.get(str(path["id"]))
            known = "::".join(summary["path"]) if summary else path["path"]
            known = self.elsewhere.get(known, known)
        return known + self.arguments(path["args"])

    def arguments(self, args):
        if args is None:
            return ""
        kind, inner = the_one(args, "list of arguments")
        if kind == "parenthesized":
            output = f" -> {self.type(inner['output'])}" if inner["output"] is not None else ""
            return f"({', '.join(map(self.type, inner['inputs']))}){output}"
        if kind != "angle_bracketed":
            raise Unreadable(f"rustdoc's JSON has a kind of arguments that scripts/api does not know: {kind}")
        shown = [self.argument(arg) for arg in inner["args"]]
        for constraint in inner["constraints"]:
            how, what = the_one(constraint["binding"], "constraint")
            bound = f" = {self.term(what)}" if how == "equality" else self.bounds(what, ": ")
            shown.append(constraint["name"] + self.arguments(constraint["args"]) + bound)
        return f"<{', '.join(shown)}>" if shown else ""

    def argument(self, arg):
        kind, inner = the_one(arg, "argument")
        if kind == "type":
            return self.type(inner)
        return {"lifetime": inner, "const": inner and inner["expr"] if kind == "const" else "", "infer": "_"}[kind]

    def term(self, term):
        kind, inner = the_one(term, "term")
        return self.type(inner) if kind == "type" else inner["expr"]

    def type(self, type_):
        kind, inner = the_one(type_, "type")
        if kind in ("generic", "primitive"):
            return "!" if inner == "never" else inner
        if kind == "resolved_path":
            return self.path(inner)
        if kind == "borrowed_ref":
            lifetime = f"{inner['lifetime']} " if inner["lifetime"] else ""
            return f"&{lifetime}{'mut ' * inner['is_mutable']}{self.type(inner['type'])}"
        if kind == "tuple":
            return f"({', '.join(map(self.type, inner))}{',' * (len(inner) == 1)})"
        if kind == "slice":
            return f"[{self.type(inner)}]"
        if kind == "array":
            return f"[{self.type(inner['type'])}; {inner['len']}]"
        if kind == "impl_trait":
            return f"impl {self.bounds(inner)}"
        if kind == "dyn_trait":
            shown = [self.higher(each["generic_params"]) + self.path(each["trait"]) for each in inner["traits"]]
            return f"dyn {' + '.join(shown + [inner['lifetime']] * (inner['lifetime'] is not None))}"
        if kind == "raw_pointer":
            return f"*{'mut' if inner['is_mutable'] else 'const'} {self.type(inner['type'])}"
        if kind == "function_pointer":
            header = "unsafe " * inner["header"]["is_unsafe"]
            types = [[None, each] for _, each in inner["sig"]["inputs"]]
            return f"{self.higher(inner['generic_params'])}{header}fn{self.signature({**inner['sig'], 'inputs': types})}"
        if kind == "qualified_path":
            trait = f" as {self.path(inner['trait'])}" if inner["trait"] and inner["trait"]["path"] else ""
            whole = f"<{self.type(inner['self_type'])}{trait}>" if trait else self.type(inner["self_type"])
            return f"{whole}::{inner['name']}{self.arguments(inner['args'])}"
        if kind == "infer":
            return "_"
        raise Unreadable(f"rustdoc's JSON has a kind of type that scripts/api does not know: {kind}")
