using System.Globalization;

namespace Rho.Jinja;

/// <summary>Reads the part of Jinja that chat templates use; the rest is refused by name.</summary>
internal sealed class TemplateParser
{
    private const int DeepestNesting = 100;

    private readonly List<TemplateToken> _tokens;
    private int _at;
    private int _depth;
    private int _loops;

    private TemplateParser(List<TemplateToken> tokens) => _tokens = tokens;

    public static List<TemplateStatement> Parse(string source)
    {
        var parser = new TemplateParser(TemplateLexer.Read(source));
        var statements = parser.Body(out _);
        return statements;
    }

    private TemplateToken Current => _tokens[_at];

    private RhoException Error(string problem) => new($"chat template, line {Current.Line}: {problem}");

    private string Shown => Current.Kind switch
    {
        TokenKind.BlockEnd => "the end of the tag",
        TokenKind.PrintEnd => "'}}'",
        TokenKind.Text2 => "a text",
        TokenKind.End => "the end of the template",
        _ => $"'{Current.Text}'",
    };

    private bool IsOperator(string text) => Current.Kind == TokenKind.Operator && Current.Text == text;

    private bool IsName(string text) => Current.Kind == TokenKind.Name && Current.Text == text;

    private bool AcceptOperator(string text)
    {
        if (!IsOperator(text)) return false;
        _at++;
        return true;
    }

    private bool AcceptName(string text)
    {
        if (!IsName(text)) return false;
        _at++;
        return true;
    }

    private void ExpectOperator(string text)
    {
        if (!AcceptOperator(text)) throw Error($"expected '{text}', found {Shown}");
    }

    private string ExpectName()
    {
        if (Current.Kind != TokenKind.Name) throw Error($"expected a name, found {Shown}");
        return _tokens[_at++].Text;
    }

    private void ExpectBlockEnd()
    {
        if (Current.Kind != TokenKind.BlockEnd) throw Error($"unexpected {Shown} in a tag");
        _at++;
    }

    /// <summary>Statements up to a tag of one of these names, whose name is taken; without names, up to the end.</summary>
    private List<TemplateStatement> Body(out string end, params ReadOnlySpan<string> ends)
    {
        if (++_depth > DeepestNesting) throw Error("blocks nested more than 100 deep");
        var statements = new List<TemplateStatement>();
        while (true)
        {
            var line = Current.Line;
            switch (Current.Kind)
            {
                case TokenKind.Text:
                    statements.Add(new TextStatement(_tokens[_at++].Text) { Line = line });
                    break;
                case TokenKind.PrintBegin:
                    _at++;
                    statements.Add(new PrintStatement(Tuple()) { Line = line });
                    if (Current.Kind != TokenKind.PrintEnd) throw Error($"unexpected {Shown} in '{{{{ }}}}'");
                    _at++;
                    break;
                case TokenKind.BlockBegin:
                    _at++;
                    var name = ExpectName();
                    if (ends.Contains(name))
                    {
                        end = name;
                        _depth--;
                        return statements;
                    }

                    statements.Add(Statement(name, line));
                    break;
                default:
                    if (ends.Length > 0) throw Error($"a block has no '{{% {ends[^1]} %}}'");
                    end = "";
                    _depth--;
                    return statements;
            }
        }
    }

    private TemplateStatement Statement(string name, int line)
    {
        switch (name)
        {
            case "if":
                return If(line);
            case "for":
                return For(line);
            case "set":
                return Set(line);
            case "macro":
                return Macro(line);
            case "with":
                return With(line);
            case "generation":
                ExpectBlockEnd();
                var marked = Body(out _, "endgeneration");
                ExpectBlockEnd();
                return new ScopeStatement([], marked, newScope: false) { Line = line };
            case "break" or "continue":
                if (_loops == 0) throw Error($"'{name}' outside of a loop");
                ExpectBlockEnd();
                return new LoopExitStatement(name == "break" ? LoopExit.Break : LoopExit.Continue) { Line = line };
            default:
                throw Error($"tag '{name}' is not supported");
        }
    }

    private IfStatement If(int line)
    {
        var branches = new List<(TemplateExpression Condition, List<TemplateStatement> Body)>();
        List<TemplateStatement> otherwise = [];
        while (true)
        {
            var condition = Tuple(withCondition: false);
            ExpectBlockEnd();
            branches.Add((condition, Body(out var end, "elif", "else", "endif")));
            if (end == "elif") continue;
            if (end == "else")
            {
                ExpectBlockEnd();
                otherwise = Body(out _, "endif");
            }

            ExpectBlockEnd();
            return new IfStatement(branches, otherwise) { Line = line };
        }
    }

    private ForStatement For(int line)
    {
        var target = Target();
        if (!AcceptName("in")) throw Error($"expected 'in', found {Shown}");
        var source = Tuple(withCondition: false);
        var condition = AcceptName("if") ? Expression() : null;
        if (IsName("recursive")) throw Error("'recursive' is not supported");
        ExpectBlockEnd();
        _loops++;
        var body = Body(out var end, "else", "endfor");
        _loops--;
        List<TemplateStatement> otherwise = [];
        if (end == "else")
        {
            ExpectBlockEnd();
            otherwise = Body(out _, "endfor");
        }

        ExpectBlockEnd();
        return new ForStatement(target, source, condition, body, otherwise) { Line = line };
    }

    private TemplateStatement Set(int line)
    {
        var target = Target();
        if (AcceptOperator("="))
        {
            var value = Tuple();
            ExpectBlockEnd();
            return new SetStatement(target, value) { Line = line };
        }

        var filtered = Filters(new CapturedExpression { Line = line });
        ExpectBlockEnd();
        var body = Body(out _, "endset");
        ExpectBlockEnd();
        return new SetBlockStatement(target, body, filtered) { Line = line };
    }

    private MacroStatement Macro(int line)
    {
        var name = ExpectName();
        ExpectOperator("(");
        var parameters = new List<(string Name, TemplateExpression? Default)>();
        while (!IsOperator(")"))
        {
            if (parameters.Count > 0) ExpectOperator(",");
            if (IsOperator(")")) break;
            var parameter = ExpectName();
            parameters.Add((parameter, AcceptOperator("=") ? Expression() : null));
        }

        ExpectOperator(")");
        ExpectBlockEnd();
        var loops = _loops;
        _loops = 0;
        var body = Body(out _, "endmacro");
        _loops = loops;
        ExpectBlockEnd();
        return new MacroStatement(name, parameters, body) { Line = line };
    }

    private ScopeStatement With(int line)
    {
        var variables = new List<(string Name, TemplateExpression Value)>();
        while (Current.Kind != TokenKind.BlockEnd)
        {
            if (variables.Count > 0) ExpectOperator(",");
            var name = ExpectName();
            ExpectOperator("=");
            variables.Add((name, Expression()));
        }

        ExpectBlockEnd();
        var body = Body(out _, "endwith");
        ExpectBlockEnd();
        return new ScopeStatement(variables, body, newScope: true) { Line = line };
    }

    /// <summary>What is assigned to: a name, several, or an attribute of a namespace.</summary>
    private TemplateExpression Target()
    {
        var line = Current.Line;
        var targets = new List<TemplateExpression>();
        do
        {
            if (targets.Count > 0 && (IsName("in") || IsOperator("=") || IsOperator(")"))) break;
            targets.Add(SingleTarget());
        }
        while (AcceptOperator(","));
        return targets.Count == 1 ? targets[0] : new ListExpression(targets, isTuple: true) { Line = line };
    }

    private TemplateExpression SingleTarget()
    {
        var line = Current.Line;
        if (AcceptOperator("("))
        {
            if (++_depth > DeepestNesting) throw Error("targets nested more than 100 deep");
            var inner = Target();
            _depth--;
            ExpectOperator(")");
            return inner;
        }

        TemplateExpression target = new NameExpression(ExpectName()) { Line = line };
        return AcceptOperator(".") ? new AttributeExpression(target, ExpectName()) { Line = line } : target;
    }

    /// <summary>One expression, or a tuple of several without parentheses.</summary>
    private TemplateExpression Tuple(bool withCondition = true)
    {
        var line = Current.Line;
        var first = withCondition ? Expression() : Or();
        if (!IsOperator(",")) return first;
        var items = new List<TemplateExpression> { first };
        while (AcceptOperator(","))
        {
            if (Current.Kind is TokenKind.BlockEnd or TokenKind.PrintEnd || IsOperator(")")) break;
            items.Add(withCondition ? Expression() : Or());
        }

        return new ListExpression(items, isTuple: true) { Line = line };
    }

    private TemplateExpression Expression()
    {
        if (++_depth > DeepestNesting) throw Error("expressions nested more than 100 deep");
        var value = Or();
        while (IsName("if"))
        {
            var line = _tokens[_at++].Line;
            var condition = Or();
            var otherwise = AcceptName("else") ? Expression() : null;
            value = new ConditionalExpression(condition, value, otherwise) { Line = line };
        }

        _depth--;
        return value;
    }

    private TemplateExpression Or()
    {
        var left = And();
        while (IsName("or"))
        {
            var line = _tokens[_at++].Line;
            left = new LogicExpression(isAnd: false, left, And()) { Line = line };
        }

        return left;
    }

    private TemplateExpression And()
    {
        var left = Not();
        while (IsName("and"))
        {
            var line = _tokens[_at++].Line;
            left = new LogicExpression(isAnd: true, left, Not()) { Line = line };
        }

        return left;
    }

    private TemplateExpression Not()
    {
        var nots = 0;
        var line = Current.Line;
        while (IsName("not"))
        {
            _at++;
            nots++;
        }

        var value = Comparison();
        for (; nots > 0; nots--) value = new NotExpression(value) { Line = line };
        return value;
    }

    private TemplateExpression Comparison()
    {
        var line = Current.Line;
        var first = Sum();
        var others = new List<(string Operator, TemplateExpression Operand)>();
        while (true)
        {
            string op;
            if (Current.Kind == TokenKind.Operator && Current.Text is "==" or "!=" or "<" or "<=" or ">" or ">=") op = Current.Text;
            else if (IsName("in")) op = "in";
            else if (IsName("not") && _tokens[_at + 1] is { Kind: TokenKind.Name, Text: "in" }) op = "not in";
            else break;
            _at += op == "not in" ? 2 : 1;
            others.Add((op, Sum()));
        }

        return others.Count == 0 ? first : new CompareExpression(first, others) { Line = line };
    }

    private TemplateExpression Sum() => Chain(Concatenation, "+", "-");

    private TemplateExpression Concatenation() => Chain(Product, "~");

    private TemplateExpression Product() => Chain(Power, "*", "/", "//", "%");

    private TemplateExpression Power() => Chain(() => Unary(withFilters: true), "**");

    private TemplateExpression Chain(Func<TemplateExpression> operand, params ReadOnlySpan<string> operators)
    {
        var left = operand();
        while (Current.Kind == TokenKind.Operator && operators.Contains(Current.Text))
        {
            var token = _tokens[_at++];
            left = new BinaryExpression(token.Text, left, operand()) { Line = token.Line };
        }

        return left;
    }

    private TemplateExpression Unary(bool withFilters)
    {
        if (++_depth > DeepestNesting) throw Error("expressions nested more than 100 deep");
        var line = Current.Line;
        TemplateExpression value;
        if (IsOperator("-") || IsOperator("+"))
        {
            var negative = _tokens[_at++].Text == "-";
            value = new SignExpression(negative, Unary(withFilters: false)) { Line = line };
        }
        else
        {
            value = Primary();
        }

        value = Postfix(value);
        if (withFilters) value = Filters(value, tests: true);
        _depth--;
        return value;
    }

    private TemplateExpression Primary()
    {
        var token = Current;
        var line = token.Line;
        _at++;
        switch (token.Kind)
        {
            case TokenKind.Name:
                return token.Text switch
                {
                    "true" or "True" => new LiteralExpression(true) { Line = line },
                    "false" or "False" => new LiteralExpression(false) { Line = line },
                    "none" or "None" => new LiteralExpression(null) { Line = line },
                    _ => new NameExpression(token.Text) { Line = line },
                };
            case TokenKind.Text2:
                var text = token.Text;
                while (Current.Kind == TokenKind.Text2) text += _tokens[_at++].Text;
                return new LiteralExpression(text) { Line = line };
            case TokenKind.Integer:
                return long.TryParse(token.Text, NumberStyles.None, CultureInfo.InvariantCulture, out var integer)
                    ? new LiteralExpression(integer) { Line = line }
                    : throw Error($"integer {token.Text} is too large");
            case TokenKind.Float:
                return new LiteralExpression(double.Parse(token.Text, CultureInfo.InvariantCulture)) { Line = line };
            case TokenKind.Operator when token.Text == "(":
                if (AcceptOperator(")")) return new ListExpression([], isTuple: true) { Line = line };
                var inner = Tuple();
                ExpectOperator(")");
                return inner;
            case TokenKind.Operator when token.Text == "[":
                var items = new List<TemplateExpression>();
                while (!IsOperator("]"))
                {
                    if (items.Count > 0) ExpectOperator(",");
                    if (IsOperator("]")) break;
                    items.Add(Expression());
                }

                ExpectOperator("]");
                return new ListExpression(items, isTuple: false) { Line = line };
            case TokenKind.Operator when token.Text == "{":
                var pairs = new List<(TemplateExpression Key, TemplateExpression Value)>();
                while (!IsOperator("}"))
                {
                    if (pairs.Count > 0) ExpectOperator(",");
                    if (IsOperator("}")) break;
                    var key = Expression();
                    ExpectOperator(":");
                    pairs.Add((key, Expression()));
                }

                ExpectOperator("}");
                return new DictionaryExpression(pairs) { Line = line };
            default:
                _at--;
                throw Error($"unexpected {Shown}");
        }
    }

    private TemplateExpression Postfix(TemplateExpression value)
    {
        while (true)
        {
            var line = Current.Line;
            if (AcceptOperator("."))
            {
                if (Current.Kind == TokenKind.Integer) value = new ItemExpression(value, Primary()) { Line = line };
                else value = new AttributeExpression(value, ExpectName()) { Line = line };
            }
            else if (AcceptOperator("["))
            {
                value = Subscript(value, line);
            }
            else if (IsOperator("("))
            {
                value = new CallExpression(value, Arguments()) { Line = line };
            }
            else
            {
                return value;
            }
        }
    }

    private TemplateExpression Subscript(TemplateExpression target, int line)
    {
        var parts = new TemplateExpression?[3];
        var colons = 0;
        while (!IsOperator("]"))
        {
            if (AcceptOperator(":"))
            {
                if (++colons > 2) throw Error("a slice has at most three parts");
                continue;
            }

            if (parts[colons] is not null) throw Error($"expected ']', found {Shown}");
            parts[colons] = Expression();
        }

        ExpectOperator("]");
        if (colons > 0) return new SliceExpression(target, parts[0], parts[1], parts[2]) { Line = line };
        return new ItemExpression(target, parts[0] ?? throw Error("nothing in '[]'")) { Line = line };
    }

    private ArgumentList Arguments()
    {
        ExpectOperator("(");
        var positional = new List<TemplateExpression>();
        var named = new List<(string Name, TemplateExpression Value)>();
        while (!IsOperator(")"))
        {
            if (positional.Count + named.Count > 0) ExpectOperator(",");
            if (IsOperator(")")) break;
            if (IsOperator("*") || IsOperator("**")) throw Error($"'{Current.Text}' before an argument is not supported");
            if (Current.Kind == TokenKind.Name && _tokens[_at + 1] is { Kind: TokenKind.Operator, Text: "=" })
            {
                var name = ExpectName();
                _at++;
                if (named.Exists(item => item.Name == name)) throw Error($"argument '{name}' is there twice");
                named.Add((name, Expression()));
            }
            else
            {
                if (named.Count > 0) throw Error("an argument without a name after one with a name");
                positional.Add(Expression());
            }
        }

        ExpectOperator(")");
        return new ArgumentList(positional, named);
    }

    private TemplateExpression Filters(TemplateExpression value, bool tests = false)
    {
        while (true)
        {
            var line = Current.Line;
            if (AcceptOperator("|"))
            {
                var name = ExpectName();
                if (IsOperator(".")) throw Error($"filter '{name}.' is not supported");
                var filter = TemplateFilters.Find(name) ?? throw Error($"filter '{name}' is not supported");
                value = new FilterExpression(value, name, filter, IsOperator("(") ? Arguments() : ArgumentList.None) { Line = line };
            }
            else if (tests && AcceptName("is"))
            {
                value = Test(value, line);
            }
            else if (tests && IsOperator("("))
            {
                value = new CallExpression(value, Arguments()) { Line = line };
            }
            else
            {
                return value;
            }
        }
    }

    private TestExpression Test(TemplateExpression value, int line)
    {
        var negated = AcceptName("not");
        var name = ExpectName();
        var test = TemplateTests.Find(name) ?? throw Error($"test '{name}' is not supported");
        var arguments = ArgumentList.None;
        if (IsOperator("("))
        {
            arguments = Arguments();
        }
        else if (Current.Kind is TokenKind.Text2 or TokenKind.Integer or TokenKind.Float
            || IsOperator("[") || IsOperator("{")
            || (Current.Kind == TokenKind.Name && Current.Text is not ("else" or "or" or "and" or "if" or "is" or "in" or "not")))
        {
            arguments = new ArgumentList([Postfix(Primary())], []);
        }

        return new TestExpression(value, test, arguments, negated) { Line = line };
    }
}
