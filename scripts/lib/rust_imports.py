"""What the files of a Rust crate import from each other. scripts/circles says what counts as an import."""

import collections
import re
from pathlib import Path

TOKEN = re.compile(
    r"(?P<skip>\s+|//[^\n]*)"
    r"|(?P<comment>/\*)"
    r"|(?P<raw>(?:b|c)?r(?P<hashes>\#*)\"(?:.*?)\"(?P=hashes))"
    r"|(?P<string>[bc]?\"(?:\\.|[^\"\\])*\")"
    r"|(?P<char>b?'(?:\\(?:u\{[^}]*\}|x..|.)|[^\\'])')"
    r"|(?P<lifetime>'[A-Za-z_]\w*)"
    r"|(?P<number>\d(?:[\w]|\.(?=\d))*)"
    r"|(?P<word>(?:r\#)?[A-Za-z_]\w*)"
    r"|(?P<sign>::|\.\.|->|=>|.)",
    re.S,
)
Token = collections.namedtuple("Token", "text kind line")
Use = collections.namedtuple("Use", "path name line is_public")
Reference = collections.namedtuple("Reference", "path line scope is_macro")
OPENS, CLOSES = "([{", ")]}"
# What an item begins with that ends with its block, or with a semicolon.
BLOCKS = {"fn", "mod", "struct", "enum", "union", "trait", "impl", "unsafe", "async", "extern", "macro_rules"}
DEFINES = {"fn", "struct", "enum", "union", "trait", "type", "const", "static", "mod"}
# What no path begins with.
KEYWORDS = set(
    "as async await box break const continue dyn else enum extern false fn for if impl in let loop match mod move mut pub ref"
    " return static struct trait true type union unsafe use where while Self _".split()
) - {"union"}
LEFT_OUT = {"test", "fuzzing"}


class Unreadable(Exception):
    """The script cannot make sense of a file."""


def tokens(text, file):
    """The tokens of a file, and for each opening bracket its closing one."""
    found, at, line = [], 0, 1
    while at < len(text):
        match = TOKEN.match(text, at)
        kind, end = match.lastgroup, match.end()
        if match["raw"] is not None:
            kind = "raw"
        if kind == "comment":
            depth = 1
            while depth:
                edge = re.compile(r"/\*|\*/").search(text, end)
                if not edge:
                    raise Unreadable(f"{file}:{line}: a comment does not end")
                depth, end = depth + (1 if edge[0] == "/*" else -1), edge.end()
        elif kind != "skip":
            word = text[at:end]
            found.append(Token(word[2:] if kind == "word" and word.startswith("r#") else word, kind, line))
        line, at = line + text.count("\n", at, end), end
    partner, opened = {}, []
    for index, token in enumerate(found):
        if token.kind == "sign" and token.text in OPENS:
            opened.append(index)
        elif token.kind == "sign" and token.text in CLOSES:
            if not opened or OPENS.index(found[opened[-1]].text) != CLOSES.index(token.text):
                raise Unreadable(f"{file}:{token.line}: a bracket has no partner")
            partner[opened.pop()] = index
    if opened:
        raise Unreadable(f"{file}:{found[opened[-1]].line}: a bracket has no partner")
    return found, partner


class Scope:
    """The names of a module or of a block in it."""

    def __init__(self, outer, is_transparent=False):
        self.outer, self.items, self.uses, self.globs = outer, {}, [], []
        # Whoever defines a method names nothing that a path could begin with.
        self.is_transparent = is_transparent


class Module(Scope):
    """A module, which is a file or a part of one. `folder` is where the files of its children lie."""

    def __init__(self, parent, file, folder):
        super().__init__(None)
        self.parent, self.file, self.folder, self.children = parent, file, folder, {}
        self.crate = parent.crate if parent else self


class Crate:
    """The modules, uses and references of one library or program."""

    def __init__(self, root):
        self.files, self.uses, self.references, self.macros, self.faces = {}, [], [], {}, set()
        self.root = Module(None, root, root.parent)
        self.read(self.root)

    def read(self, module):
        self.files[module.file] = None
        try:
            text = module.file.read_text()
        except OSError as error:
            raise Unreadable(f"{module.file}: {error.strerror}") from None
        Reader(self, module, *tokens(text, module.file)).read()

    def folder_of(self, file):
        return file.parent / file.stem if file in self.faces else file.parent

    # --- What a name means: a module, the file that defines an item, or None if another crate defines it.

    def resolve(self, scope, path, wants_module=False, seen=frozenset()):
        first, rest = path[0], path[1:]
        module = scope
        while not isinstance(module, Module):
            module = module.outer
        if first in ("crate", "$crate", "self", "super"):
            found = module.crate if "crate" in first else module
            if first == "super":
                found = module.parent
            while found is not None and rest and rest[0] == "super":
                found, rest = found.parent, rest[1:]
            return self.descend(found, rest, wants_module, seen)
        while True:
            found = self.look_up(scope, first, bool(rest) or wants_module, seen)
            if found is not None or isinstance(scope, Module):
                return self.descend(found, rest, wants_module, seen)
            scope = scope.outer

    def descend(self, found, rest, wants_module, seen):
        for index, name in enumerate(rest):
            if not isinstance(found, Module):
                break
            module = found
            found = self.look_up(module, name, index + 1 < len(rest) or wants_module, seen)
            if found is None and not self.is_foreign(module, name, seen):
                # A macro may have defined it, or a glob of another crate: the module is where it was named.
                found = module.file
        return found

    def is_foreign(self, scope, name, seen):
        """Whether the scope imports the name from another crate."""
        return any(use.name == name for use in scope.uses)

    def look_up(self, scope, name, wants_module, seen):
        key = (id(scope), name, wants_module)
        if key in seen:
            return None
        seen = seen | {key}
        child = scope.children.get(name) if isinstance(scope, Module) else None
        if wants_module and child:
            return child
        if name in scope.items:
            return scope.items[name]
        named = [use for use in scope.uses if use.name == name]
        options = [self.resolve(scope, use.path, wants_module, seen) for use in named]
        # A name may stand for a module and for a function.
        options.sort(key=lambda option: isinstance(option, Module) != wants_module)
        options = [option for option in options if option is not None] + ([child] if child else [])
        if options or named:
            return options[0] if options else None
        for use in scope.globs:
            target = self.resolve(scope, use.path, True, seen)
            if isinstance(target, Module):
                found = self.look_up(target, name, wants_module, seen)
                if found is not None:
                    return found
        return None

    def imports(self):
        """{file: {file that it imports: {name: line}}}"""
        found = collections.defaultdict(lambda: collections.defaultdict(dict))

        def add(scope, path, line, target):
            module = scope
            while not isinstance(module, Module):
                module = module.outer
            if isinstance(target, Path) and target != module.file:
                names = found[module.file][target]
                # `Type::method` says no more than `Type`.
                if len(path) == 1 or path[-2] not in names:
                    names.setdefault("::".join(path[-2:]), line)

        for scope, use in self.uses:
            if not use.is_public:
                add(scope, [use.name if use.name != "_" else use.path[-1]], use.line, self.resolve(scope, use.path))
        for path, line, scope, is_macro in self.references:
            target = self.resolve(scope, path)
            if is_macro and len(path) == 1 and target is None:
                target = self.macros.get(path[0])
            add(scope, path, line, target)
        return found


class Reader:
    """Reads the tokens of one file into its module and the crate."""

    def __init__(self, crate, module, found, partner):
        self.crate, self.module, self.tokens, self.partner = crate, module, found, partner

    def read(self):
        self.block(0, len(self.tokens), self.module)

    def text(self, at):
        return self.tokens[at].text if 0 <= at < len(self.tokens) else ""

    def is_word(self, at):
        return at < len(self.tokens) and self.tokens[at].kind == "word"

    def module_of(self, scope):
        while not isinstance(scope, Module):
            scope = scope.outer
        return scope

    def block(self, at, end, scope):
        is_public, path_attribute, opens_impl = False, None, False
        while at < end:
            token, after = self.tokens[at], self.text(at + 1)
            if token.text == "#" and (after == "[" or after == "!" and self.text(at + 2) == "["):
                opened = at + (1 if after == "[" else 2)
                closed = self.partner[opened]
                if self.is_left_out(opened, closed):
                    if after == "!":
                        return
                    at = self.after_item(closed + 1, end)
                    continue
                if self.text(opened + 1) == "path" and self.text(opened + 2) == "=":
                    path_attribute = self.text(opened + 3).strip('"')
                self.attribute(opened + 1, closed, scope)
                at = closed + 1
                continue
            if token.kind == "word":
                step = self.word(at, scope, is_public, path_attribute)
                if token.text in ("impl", "trait"):
                    opens_impl = True
                elif token.text in ("fn", "struct", "enum", "mod"):
                    opens_impl = False
                if token.text == "pub":
                    is_public = True
                elif token.text not in ("unsafe", "async", "extern"):
                    is_public = False
                if token.text not in ("pub", "crate", "unsafe"):
                    path_attribute = None
                at = step
                continue
            if token.kind == "sign" and token.text == "{":
                self.block(at + 1, self.partner[at], Scope(scope, opens_impl))
                opens_impl, at = False, self.partner[at]
            at += 1

    def word(self, at, scope, is_public, path_attribute):
        """Reads what begins with a word, and says where the next thing begins."""
        word, after = self.text(at), self.text(at + 1)
        if word == "pub":
            is_limited = after == "(" and self.text(at + 2) in ("crate", "self", "super", "in")
            return self.partner[at + 1] + 1 if is_limited else at + 1
        if word == "use" and after != "<":
            return self.use(at, scope, is_public)
        if word == "mod" and self.is_word(at + 1):
            return self.child(at, scope, path_attribute)
        if word == "macro_rules" and after == "!":
            self.crate.macros[self.text(at + 2)] = self.module.file
            scope.items[self.text(at + 2)] = self.module.file
            return at + 3
        is_contextual = word == "union" and not self.is_word(at + 1)
        if word in DEFINES and not is_contextual and self.is_word(at + 1) and self.text(at - 1) != "*":
            if after in ("fn", "unsafe", "extern", "async", "mut"):
                return at + 1
            if not scope.is_transparent:
                scope.items[after] = self.module.file
            return at + 2
        if word in KEYWORDS:
            return at + 1
        return self.path(at, scope)

    def path(self, at, scope):
        before, first = self.text(at - 1), at
        words = [self.text(at)]
        at += 1
        while self.text(at) == "::" and self.is_word(at + 1):
            words.append(self.text(at + 1))
            at += 2
        if before == "$" and words[0] == "crate":
            words[0] = "$crate"
        is_field = len(words) == 1 and (self.text(at) == ":" or words[0] in ("self", "super", "crate"))
        if before in (".", "::", "let", "mut", "ref") or before == "$" and words[0] != "$crate" or is_field:
            return at
        is_macro = self.text(at) == "!" and self.text(at + 1) in OPENS
        self.crate.references.append(Reference(words, self.tokens[first].line, scope, is_macro))
        return at

    def use(self, at, scope, is_public):
        end = at
        while self.text(end) != ";":
            end += 1
        line = self.tokens[at].line
        for path, name in self.tree(at + 1, end, []):
            use = Use(path, name, line, is_public)
            if name == "*":
                scope.globs.append(use)
                continue
            scope.uses.append(use)
            self.crate.uses.append((scope, use))
        return end + 1

    def tree(self, at, end, prefix):
        """The paths of a `use`, each with the name that it gets."""
        path = list(prefix)
        while at < end:
            text = self.text(at)
            if text == "{":
                closed, begins = self.partner[at], at + 1
                inner = begins
                while inner < closed:
                    inner = self.partner[inner] if self.text(inner) == "{" else inner
                    inner += 1
                    if inner >= closed or self.text(inner) == ",":
                        yield from self.tree(begins, inner, path)
                        begins = inner = inner + 1
                return
            if text == "*":
                yield path, "*"
                return
            if text == "as":
                yield path, self.text(at + 1)
                return
            if text == "self" and path:
                pass
            elif text != "::":
                path.append(text)
            at += 1
        if path and path != prefix or self.text(end - 1) == "self":
            yield path, path[-1]

    def child(self, at, scope, path_attribute):
        name, parent = self.text(at + 1), self.module_of(scope)
        if self.text(at + 2) == "{":
            inner = Module(parent, parent.file, parent.folder / name)
            parent.children[name] = inner
            self.block(at + 3, self.partner[at + 2], inner)
            return self.partner[at + 2] + 1
        if path_attribute:
            # Beside the file, unless a module in the file declares it.
            beside = parent.file.parent if parent is self.module else parent.folder
            file = (beside / path_attribute).resolve()
        else:
            file = next((f for f in (parent.folder / f"{name}.rs", parent.folder / name / "mod.rs") if f.is_file()), None)
        if file is None:
            raise Unreadable(f"{self.module.file}:{self.tokens[at].line}: there is no file of module {name}")
        folder = file.parent if file.name == "mod.rs" or path_attribute else file.parent / file.stem
        parent.children[name] = module = Module(parent, file, folder)
        is_root = parent.file == self.crate.root.file
        if not is_root and parent.file.name != "mod.rs" and parent.file.parent / parent.file.stem in file.parents:
            self.crate.faces.add(parent.file)
        self.crate.read(module)
        return at + 3

    def attribute(self, at, end, scope):
        """Names in an attribute, also in strings, as serde has them."""
        at += 1
        while at < end:
            token = self.tokens[at]
            if token.kind == "string" and re.fullmatch(r'"\w+(::\w+)+"', token.text):
                path = token.text.strip('"').split("::")
                self.crate.references.append(Reference(path, token.line, scope, False))
            if token.kind == "word" and token.text not in KEYWORDS and self.text(at + 1) != "=":
                at = self.path(at, scope)
            else:
                at += 1

    def is_left_out(self, opened, closed):
        """Whether the attribute in these brackets is a condition that only tests or fuzzing fulfil."""
        return self.text(opened + 1) == "cfg" and self.condition(opened + 3, closed - 1) is False

    def condition(self, at, end):
        """True, False, or None if it depends."""
        word = self.text(at)
        if self.text(at + 1) != "(":
            return False if word in LEFT_OUT and self.text(at + 1) != "=" else None
        parts, begins, inner = [], at + 2, at + 2
        while inner <= self.partner[at + 1]:
            if self.text(inner) in OPENS and inner in self.partner:
                inner = self.partner[inner]
            elif self.text(inner) == "," or inner == self.partner[at + 1]:
                if begins < inner:
                    parts.append(self.condition(begins, inner))
                begins = inner + 1
            inner += 1
        if word == "not":
            return None if parts[0] is None else not parts[0]
        decisive = word == "any"
        if decisive in parts:
            return decisive
        return None if None in parts else not decisive

    def after_item(self, at, end):
        """Where the item, field, variant, arm or statement ends that begins here."""
        while self.text(at) == "#" and self.text(at + 1) == "[":
            at = self.partner[at + 1] + 1
        begins = at
        if self.text(begins) == "pub":
            begins = self.partner[begins + 1] + 1 if self.text(begins + 1) == "(" else begins + 1
        first, second = self.text(begins), self.text(begins + 1)
        is_value = first in ("use", "static", "type", "let") or first == "const" and second not in ("fn", "unsafe")
        is_item = first in BLOCKS or first == "const" and not is_value
        while at < end:
            text = self.text(at) if self.tokens[at].kind == "sign" else ""
            if text == ";" or text == "," and not is_item and not is_value:
                return at + 1
            if text and text in OPENS:
                at = self.partner[at]
                if text == "{" and not is_value:
                    return at + 2 if self.text(at + 1) == "," else at + 1
            at += 1
        return at
