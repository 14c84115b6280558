//! The part of Go's templates that `deploy/chart` uses, with the functions of Helm that it uses. Everything else, and a
//! field that is not there, is an error: the chart stays within what is understood here.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

/// Parsed templates, with what they define.
#[derive(Default)]
pub(crate) struct Templates {
    defined: BTreeMap<String, Vec<Node>>,
}

#[derive(Clone, Debug)]
enum Node {
    Text(String),
    Output(Pipeline),
    Assign(String, Pipeline),
    If(Vec<(Pipeline, Vec<Self>)>, Vec<Self>),
    /// Names for key and value, over what.
    Range(Option<(String, String)>, Pipeline, Vec<Self>),
}

type Pipeline = Vec<Vec<Operand>>;

#[derive(Clone, Debug)]
enum Operand {
    /// A path from the dot.
    Dot(Vec<String>),
    /// A variable (empty: the root), and a path from it.
    Variable(String, Vec<String>),
    Literal(Value),
    Inner(Pipeline),
    Function(String),
}

enum Token {
    Text(String),
    Action(String),
}

/// What names mean while rendering.
struct Scope<'a> {
    templates: &'a Templates,
    root: &'a Value,
    variables: Vec<(String, Value)>,
}

impl Templates {
    /// Adds the definitions of a file and gives what is outside them.
    fn parse(&mut self, text: &str) -> Result<Vec<Node>> {
        let mut tokens = tokens(text)?.into_iter();
        let (nodes, end) = self.nodes(&mut tokens)?;
        ensure!(end.is_empty(), "unexpected {end}");
        Ok(nodes)
    }

    /// Adds a file that only defines.
    pub(crate) fn define(&mut self, text: &str) -> Result<()> {
        self.parse(text).map(drop)
    }

    /// Renders a file.
    pub(crate) fn render(&mut self, text: &str, root: &Value) -> Result<String> {
        let nodes = self.parse(text)?;
        let mut scope = Scope { templates: self, root, variables: Vec::new() };
        let mut out = String::new();
        scope.nodes(&nodes, root, &mut out)?;
        Ok(out)
    }

    /// Nodes up to `end` or an `else`, which is given, too.
    fn nodes(&mut self, tokens: &mut impl Iterator<Item = Token>) -> Result<(Vec<Node>, String)> {
        let mut nodes = Vec::new();
        while let Some(token) = tokens.next() {
            let action = match token {
                Token::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Token::Action(action) => action,
            };
            let (word, rest) = action.split_once(' ').unwrap_or((&action, ""));
            match word {
                "end" | "else" => return Ok((nodes, action)),
                "define" => {
                    let name: String = serde_json::from_str(rest.trim()).context("name of a definition")?;
                    let (body, end) = self.nodes(tokens)?;
                    ensure!(end == "end", "definition {name} ends with {end:?}");
                    self.defined.insert(name, body);
                }
                "if" => nodes.push(self.branches(rest, tokens)?),
                "range" => {
                    let (names, over) = match rest.split_once(":=") {
                        Some((names, over)) => {
                            let (key, value) = names.split_once(',').context("range wants two names")?;
                            (Some((variable(key)?, variable(value)?)), over)
                        }
                        None => (None, rest),
                    };
                    let (body, end) = self.nodes(tokens)?;
                    ensure!(end == "end", "range ends with {end:?}");
                    nodes.push(Node::Range(names, pipeline(over)?, body));
                }
                _ => match action.split_once(":=") {
                    Some((name, value)) => nodes.push(Node::Assign(variable(name)?, pipeline(value)?)),
                    None => nodes.push(Node::Output(pipeline(&action)?)),
                },
            }
        }
        Ok((nodes, String::new()))
    }

    fn branches(&mut self, condition: &str, tokens: &mut impl Iterator<Item = Token>) -> Result<Node> {
        let mut branches = Vec::new();
        let mut condition = condition.to_owned();
        loop {
            let (body, end) = self.nodes(tokens)?;
            branches.push((pipeline(&condition)?, body));
            match end.strip_prefix("else") {
                None => return Ok(Node::If(branches, Vec::new())),
                Some("") => {
                    let (body, end) = self.nodes(tokens)?;
                    ensure!(end == "end", "else ends with {end:?}");
                    return Ok(Node::If(branches, body));
                }
                Some(more) => condition = more.trim().strip_prefix("if ").context("else if")?.to_owned(),
            }
        }
    }
}

impl Scope<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value, out: &mut String) -> Result<()> {
        let outer = self.variables.len();
        for node in nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Output(pipeline) => out.push_str(&plain(&self.pipeline(pipeline, dot)?)?),
                Node::Assign(name, pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    self.variables.push((name.clone(), value));
                }
                Node::If(branches, otherwise) => {
                    let mut chosen = otherwise;
                    for (condition, body) in branches {
                        if truth(&self.pipeline(condition, dot)?) {
                            chosen = body;
                            break;
                        }
                    }
                    self.nodes(chosen, dot, out)?;
                }
                Node::Range(names, over, body) => {
                    let items: Vec<(Value, Value)> = match self.pipeline(over, dot)? {
                        Value::Array(items) => {
                            items.into_iter().enumerate().map(|(at, item)| (at.into(), item)).collect()
                        }
                        Value::Object(fields) => {
                            fields.into_iter().map(|(key, value)| (key.into(), value)).collect()
                        }
                        other => bail!("range over {other}"),
                    };
                    for (key, value) in items {
                        let before = self.variables.len();
                        if let Some((for_key, for_value)) = names {
                            self.variables.push((for_key.clone(), key));
                            self.variables.push((for_value.clone(), value.clone()));
                        }
                        self.nodes(body, &value, out)?;
                        self.variables.truncate(before);
                    }
                }
            }
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value> {
        let mut passed = None;
        for command in pipeline {
            let value = match command.as_slice() {
                [Operand::Function(name), arguments @ ..] => {
                    let arguments = arguments.iter().map(|operand| self.operand(operand, dot));
                    let mut arguments: Vec<Value> = arguments.collect::<Result<_>>()?;
                    arguments.extend(passed.take());
                    self.call(name, &arguments).with_context(|| format!("{name} {arguments:?}"))?
                }
                [operand] if passed.is_none() => self.operand(operand, dot)?,
                other => bail!("not understood: {other:?}"),
            };
            passed = Some(value);
        }
        passed.context("an empty action")
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value> {
        match operand {
            Operand::Dot(path) => below(dot, path),
            Operand::Variable(name, path) if name.is_empty() => below(self.root, path),
            Operand::Variable(name, path) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                below(&found.with_context(|| format!("no variable ${name}"))?.1, path)
            }
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Inner(inner) => self.pipeline(inner, dot),
            Operand::Function(name) => self.call(name, &[]),
        }
    }

    fn call(&mut self, name: &str, arguments: &[Value]) -> Result<Value> {
        Ok(match (name, arguments) {
            ("include", [Value::String(name), dot]) => {
                let body =
                    self.templates.defined.get(name).with_context(|| format!("no definition {name}"))?;
                let mut inner = Scope { templates: self.templates, root: dot, variables: Vec::new() };
                let mut out = String::new();
                inner.nodes(body, dot, &mut out)?;
                out.into()
            }
            ("quote", [value]) => serde_json::to_string(&plain(value)?)?.into(),
            ("toYaml", [value]) => serde_yaml_ng::to_string(value)?.trim_end().into(),
            ("fromYaml", [Value::String(text)]) => {
                let value: Value = serde_yaml_ng::from_str(text)?;
                if value.is_null() { Value::Object(Map::new()) } else { value }
            }
            ("nindent", [Value::Number(by), Value::String(text)]) => {
                let by = " ".repeat(usize::try_from(by.as_u64().context("a size")?)?);
                text.lines().map(|line| format!("\n{by}{line}")).collect::<String>().into()
            }
            ("join", [Value::String(between), Value::Array(items)]) => {
                items.iter().map(plain).collect::<Result<Vec<_>>>()?.join(between).into()
            }
            ("printf", [Value::String(form), arguments @ ..]) => {
                let mut parts = form.split("%s");
                let mut out = parts.next().unwrap_or_default().to_owned();
                for argument in arguments {
                    out.push_str(&plain(argument)?);
                    out.push_str(parts.next().context("more arguments than %s")?);
                }
                ensure!(parts.next().is_none() && !out.contains('%'), "only %s, one an argument");
                out.into()
            }
            ("dict", pairs) => {
                let mut fields = Map::new();
                for pair in pairs.chunks(2) {
                    let [Value::String(key), value] = pair else { bail!("pairs with text keys") };
                    fields.insert(key.clone(), value.clone());
                }
                fields.into()
            }
            ("hasKey", [Value::Object(fields), Value::String(key)]) => fields.contains_key(key).into(),
            ("eq", [one, other]) => (one == other).into(),
            ("not", [value]) => (!truth(value)).into(),
            ("or", [one, other]) => (if truth(one) { one } else { other }).clone(),
            ("and", [one, other]) => (if truth(one) { other } else { one }).clone(),
            _ => bail!("a function or arguments that are not understood"),
        })
    }
}

fn below(value: &Value, path: &[String]) -> Result<Value> {
    let mut at = value;
    for name in path {
        at = at.get(name).with_context(|| format!("no field {name} of .{} in {at}", path.join(".")))?;
    }
    Ok(at.clone())
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn plain(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        other => bail!("{other} put out as text"),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut rest = text;
    let mut trims = false;
    loop {
        let (before, after) = match rest.split_once("{{") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        let mut before = if trims { before.trim_start() } else { before };
        let Some(after) = after else {
            tokens.push(Token::Text(before.to_owned()));
            return Ok(tokens);
        };
        let (action, next) = after.split_once("}}").context("an action without its end")?;
        let mut action = action;
        if let Some(inner) = action.strip_prefix("- ") {
            (action, before) = (inner, before.trim_end());
        }
        trims = action.ends_with(" -");
        let action = action.strip_suffix(" -").unwrap_or(action).trim();
        ensure!(!action.contains(['\n', '`']) && !action.starts_with("/*"), "not understood: {action}");
        tokens.push(Token::Text(before.to_owned()));
        tokens.push(Token::Action(action.to_owned()));
        rest = next;
    }
}

fn variable(text: &str) -> Result<String> {
    Ok(text.trim().strip_prefix('$').context("a variable begins with $")?.to_owned())
}

fn pipeline(text: &str) -> Result<Pipeline> {
    let mut rest = text.trim();
    let pipeline = commands(&mut rest)?;
    ensure!(rest.is_empty(), "not understood: {rest}");
    Ok(pipeline)
}

/// Commands up to the end or a closing bracket, which stays.
fn commands(rest: &mut &str) -> Result<Pipeline> {
    let mut pipeline = vec![Vec::new()];
    loop {
        *rest = rest.trim_start();
        if rest.is_empty() || rest.starts_with(')') {
            ensure!(pipeline.iter().all(|command| !command.is_empty()), "an empty command");
            return Ok(pipeline);
        }
        if let Some(more) = rest.strip_prefix('|') {
            pipeline.push(Vec::new());
            *rest = more;
            continue;
        }
        let operand = operand(rest)?;
        pipeline.last_mut().context("at least one")?.push(operand);
    }
}

fn operand(rest: &mut &str) -> Result<Operand> {
    if let Some(more) = rest.strip_prefix('(') {
        *rest = more;
        let inner = commands(rest)?;
        *rest = rest.strip_prefix(')').context("a bracket that is not closed")?;
        return Ok(Operand::Inner(inner));
    }
    if let Some(more) = rest.strip_prefix('"') {
        let (text, more) = more.split_once('"').context("a text without its end")?;
        ensure!(!text.contains('\\'), "escapes are not understood");
        *rest = more;
        return Ok(Operand::Literal(text.into()));
    }
    let end = rest.find([' ', ')', '|']).unwrap_or(rest.len());
    let (word, more) = rest.split_at(end);
    *rest = more;
    let path = |text: &str| text.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if let Some(from_dot) = word.strip_prefix('.') {
        return Ok(Operand::Dot(path(from_dot)));
    }
    if let Some(variable) = word.strip_prefix('$') {
        let (name, from) = variable.split_once('.').unwrap_or((variable, ""));
        return Ok(Operand::Variable(name.to_owned(), path(from)));
    }
    match word.parse::<u64>() {
        Ok(number) => Ok(Operand::Literal(number.into())),
        Err(_no_number) => Ok(Operand::Function(word.to_owned())),
    }
}
