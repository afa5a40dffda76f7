#!/usr/bin/env python3
"""The public API as text: one line for each item that users can name, with its signature, sorted.

    .ci/api.py            compares with tests/api.txt, prints the difference, exits 1 where there is one
    .ci/api.py --bless    writes tests/api.txt anew

It reads what rustdoc says as JSON, with all features on (of the two for TLS, the quick one). That format is unstable, so RUSTC_BOOTSTRAP=1 asks for it, and
another compiler may speak another version of it: then this script says so and compares nothing.
"""
import difflib, json, os, subprocess, sys

FORMAT = 57  # of rustc 1.95
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIST = os.path.join(ROOT, "tests", "api.txt")
TARGET = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "api")


def rustdoc():
    command = ["cargo", "rustdoc", "--quiet", "--lib", "--features", "testing,tls-ring", "--target-dir", TARGET]
    command += ["--", "-Z", "unstable-options", "--output-format", "json"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "RUSTC_BOOTSTRAP": "1"}, check=True)
    with open(os.path.join(TARGET, "doc", "socketserver.json"), encoding="utf-8") as file:
        return json.load(file)


# Types, as they are written.

TYPES = ("struct", "enum", "trait", "type_alias")
PATHS, OURS = {}, set()  # what rustdoc knows of each item named; names that this crate has, too

def kind(node):
    """The one key of a tagged node, and what it holds."""
    return (node, None) if isinstance(node, str) else next(iter(node.items()))


def ty(node):
    if node is None:
        return "()"
    tag, it = kind(node)
    if tag in ("generic", "primitive"):
        return it
    if tag == "resolved_path":
        return path(it)
    if tag == "tuple":
        return "(" + ", ".join(map(ty, it)) + ("," if len(it) == 1 else "") + ")"
    if tag == "slice":
        return f"[{ty(it)}]"
    if tag == "array":
        return f"[{ty(it['type'])}; {it['len']}]"
    if tag == "borrowed_ref":
        life = it["lifetime"] + " " if it["lifetime"] else ""
        return f"&{life}{'mut ' if it['is_mutable'] else ''}{ty(it['type'])}"
    if tag == "impl_trait":
        return "impl " + bounds(it)
    if tag == "dyn_trait":
        parts = [higher(t["generic_params"]) + path(t["trait"]) for t in it["traits"]]
        return "dyn " + " + ".join(parts + ([it["lifetime"]] if it["lifetime"] else []))
    if tag == "qualified_path":
        owner = ty(it["self_type"])
        if it["trait"] and it["trait"]["path"]:
            owner = f"<{owner} as {path(it['trait'])}>"
        return f"{owner}::{it['name']}{arguments(it['args'])}"
    if tag == "raw_pointer":
        return f"*{'mut' if it['is_mutable'] else 'const'} {ty(it['type'])}"
    if tag == "function_pointer":
        return f"fn({', '.join(ty(t) for _, t in it['sig']['inputs'])}){returns(it['sig'])}"
    raise SystemExit(f"api.py cannot write a type of the kind {tag}")


def path(it):
    """By its last name, wherever in the crate it stands; with the crate's name where another crate has the same."""
    name = it["path"].split("::")[-1]
    foreign = PATHS.get(str(it["id"]), {"crate_id": 0})["crate_id"] != 0
    return ("std::" if foreign and name in OURS else "") + name + arguments(it["args"])


def arguments(args):
    if not args:
        return ""
    tag, it = kind(args)
    if tag == "parenthesized":
        return f"({', '.join(map(ty, it['inputs']))})" + (f" -> {ty(it['output'])}" if it["output"] else "")
    parts = []
    for arg in it["args"]:
        which, value = kind(arg)
        parts.append(ty(value) if which == "type" else value if which == "lifetime" else str(value and value["expr"]))
    for bound in it["constraints"]:
        which, value = kind(bound["binding"])
        parts.append(bound["name"] + (f" = {ty(value['type'])}" if which == "equality" else f": {bounds(value)}"))
    return f"<{', '.join(parts)}>" if parts else ""


def bounds(list_):
    parts = []
    for bound in list_:
        tag, it = kind(bound)
        if tag == "trait_bound":
            parts.append(higher(it["generic_params"]) + {"maybe": "?"}.get(it["modifier"], "") + path(it["trait"]))
        elif tag == "outlives":
            parts.append(it)
        else:
            raise SystemExit(f"api.py cannot write a bound of the kind {tag}")
    return " + ".join(parts)


def higher(params):
    names = [p["name"] for p in params]
    return f"for<{', '.join(names)}> " if names else ""


def generics(it):
    """What stands in `<>`, and the `where`."""
    params = []
    for p in it["params"]:
        tag, what = kind(p["kind"])
        if tag == "type" and not what["is_synthetic"]:
            bound, default = bounds(what["bounds"]), what["default"]
            params.append(p["name"] + (f": {bound}" if bound else "") + (f" = {ty(default)}" if default else ""))
        elif tag == "lifetime":
            params.append(p["name"])
        elif tag == "const":
            params.append(f"const {p['name']}: {ty(what['type'])}")
    where = []
    for predicate in it["where_predicates"]:
        tag, what = kind(predicate)
        if tag == "bound_predicate":
            where.append(f"{higher(what['generic_params'])}{ty(what['type'])}: {bounds(what['bounds'])}")
        elif tag == "lifetime_predicate":
            where.append(f"{what['lifetime']}: {' + '.join(what['outlives'])}")
        else:
            raise SystemExit(f"api.py cannot write a predicate of the kind {tag}")
    return (f"<{', '.join(params)}>" if params else ""), (f" where {', '.join(where)}" if where else "")


def returns(sig):
    return f" -> {ty(sig['output'])}" if sig["output"] else ""


def argument(name, node):
    if name != "self":
        return f"{name}: {ty(node)}"
    return {"Self": "self", "&Self": "&self", "&mut Self": "&mut self"}.get(ty(node), f"self: {ty(node)}")


# Items, each a line.

class Api:
    def __init__(self, doc):
        PATHS.update(doc["paths"])
        OURS.update(i["name"] for i in doc["index"].values() if i["crate_id"] == 0 and kind(i["inner"])[0] in TYPES)
        self.impls = {i["id"] for i in doc["index"].values() if i["crate_id"] == 0 and "impl" in i["inner"]}
        self.index, self.lines = doc["index"], set()  # lines: sorted by what they are about
        self.homes = {}  # by number: the shortest path, under which an item is described
        for describe in (False, True):
            self.describe = describe
            self.walk(self.item(doc["root"]), "socketserver")
        for number in sorted(self.impls):
            if self.item(number)["inner"]["impl"]["trait"]:
                self.impl(self.item(number), "socketserver::~")  # for types of other crates

    def item(self, number):
        return self.index.get(str(number))

    def say(self, item, at, line):
        marks = ""
        for attr in item["attrs"]:
            tag, it = kind(attr)
            marks += f"#[{tag}] " if tag in ("non_exhaustive", "must_use") else ""
        self.lines.add((at, ("#[deprecated] " if item["deprecation"] else "") + marks + line))

    def walk(self, module, at):
        for number in module["inner"]["module"]["items"]:
            item = self.item(number)
            if item and item["visibility"] == "public":
                self.named(item, at)

    def named(self, item, at):
        tag, it = kind(item["inner"])
        if tag == "use":
            target = self.item(it["id"])
            if target and it["is_glob"]:
                self.walk(target, at)
            elif target:
                self.named({**target, "name": it["name"]}, at)
            else:
                self.lines.add((f"{at}::{it['name']}", f"use {at}::{it['name']} = {it['source']}"))
            return
        full = f"{at}::{item['name']}"
        shorter = lambda path: (path.count("::"), path)
        home = self.homes[item["id"]] = min(self.homes.get(item["id"], full), full, key=shorter)
        if not self.describe and tag != "module":
            return
        if full != home:
            self.lines.add((full, f"use {full} = {home}"))
            return
        if tag == "module":
            if self.describe:
                self.say(item, full, f"mod {full}")
            return self.walk(item, full)
        if tag == "function":
            return self.function(item, full)
        if tag in ("constant", "static"):
            return self.say(item, full, f"{tag} {full}: {ty(it['type'])}")
        params, where = generics(it["generics"])
        if tag == "type_alias":
            return self.say(item, full, f"type {full}{params} = {ty(it['type'])}{where}")
        if tag == "trait":
            above = f": {bounds(it['bounds'])}" if it["bounds"] else ""
            self.say(item, full, f"{'unsafe ' if it['is_unsafe'] else ''}trait {full}{params}{above}{where}"
                           + ("" if it["is_dyn_compatible"] else " [not dyn]"))
            return self.members(it["items"], full)
        if tag == "struct":
            self.say(item, full, f"struct {full}{params}{where}" + self.fields(it["kind"], full))
        elif tag == "enum":
            self.say(item, full, f"enum {full}{params}{where}")
            for variant in filter(None, map(self.item, it["variants"])):
                name = f"{full}::{variant['name']}"
                self.say(variant, name, f"variant {name}" + self.fields(variant["inner"]["variant"]["kind"], name))
        else:
            raise SystemExit(f"api.py cannot write an item of the kind {tag}")
        for number in it["impls"]:
            self.impl(self.item(number), full)

    def fields(self, shape, full):
        """Named ones get lines of their own."""
        tag, it = kind(shape)
        if tag == "tuple":
            inner = [self.item(n) if n is not None else None for n in it]
            return "(" + ", ".join(ty(f["inner"]["struct_field"]) if f else "_" for f in inner) + ")"
        if it and tag in ("plain", "struct"):
            for field in filter(None, map(self.item, it["fields"])):
                if tag == "struct" or field["visibility"] == "public":
                    self.say(field, f"{full}::{field['name']}", f"field {full}::{field['name']}: {ty(field['inner']['struct_field'])}")
            return " { .. }" if it["has_stripped_fields"] else " {}"
        return ""

    def impl(self, item, full):
        it = item["inner"]["impl"]
        self.impls.discard(item["id"])
        params, where = generics(it["generics"])
        if it["trait"] is None:
            head = full + (f" [impl{params} {ty(it['for'])}{where}]" if it["generics"]["where_predicates"] or any(
                kind(p["kind"])[0] == "type" for p in it["generics"]["params"]) else "")
            return self.members(it["items"], full, head[len(full):])
        name = path(it["trait"])
        if it["blanket_impl"] or it["is_synthetic"] and name not in ("Send", "Sync"):
            return
        if name in ("StructuralPartialEq",):
            return
        self.lines.add((full, f"impl{params} {'!' if it['is_negative'] else ''}{name} for {ty(it['for'])}{where}"))

    def members(self, items, full, note=""):
        for item in filter(None, map(self.item, items)):
            tag, it = kind(item["inner"])
            name = f"{full}::{item['name']}"
            if tag == "function" and item["visibility"] in ("public", "default"):
                self.function(item, name, note)
            elif tag == "assoc_type":
                bound = f": {bounds(it['bounds'])}" if it["bounds"] else ""
                self.say(item, name, f"type {name}{bound}" + (f" = {ty(it['type'])}" if it["type"] else ""))
            elif tag == "assoc_const" and item["visibility"] in ("public", "default"):
                self.say(item, name, f"const {name}: {ty(it['type'])}")

    def function(self, item, full, note=""):
        it = item["inner"]["function"]
        params, where = generics(it["generics"])
        head = "".join(word + " " for word in ("const", "unsafe", "async") if it["header"][f"is_{word}"])
        inputs = ", ".join(argument(name, node) for name, node in it["sig"]["inputs"])
        body = " {}" if full.count("::") and item["visibility"] == "default" and it["has_body"] else ""
        self.say(item, full, f"{head}fn {full}{params}({inputs}){returns(it['sig'])}{where}{body}{note}")


def main():
    doc = rustdoc()
    if doc["format_version"] != FORMAT:
        print(f"skipped: rustdoc's JSON has version {doc['format_version']}, and tests/api.txt was made of {FORMAT}")
        return 0
    text = "".join(line + "\n" for _, line in sorted(Api(doc).lines))
    if "--bless" in sys.argv:
        with open(LIST, "w", encoding="utf-8") as file:
            file.write(text)
        return 0
    with open(LIST, encoding="utf-8") as file:
        listed = file.read()
    diff = list(difflib.unified_diff(listed.splitlines(), text.splitlines(), "tests/api.txt", "the code", "", "", 0, ""))
    if diff:
        print("\n".join(diff))
        print("The public API has changed. Where that is meant: .ci/api.py --bless")
    return bool(diff)


sys.exit(main())
