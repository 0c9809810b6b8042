using System.Globalization;
using System.Text.Json;
using TorchSharp.Modules;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;

namespace TorchSharp.Tests;

/// <summary>Every operation against values that PyTorch computed from the same inputs (data/make.py).</summary>
public sealed class OperationTests
{
    private static readonly Dictionary<string, (ScalarType Type, long[] Shape, double[] Values)> Inputs = [];
    private static readonly Dictionary<string, List<(ScalarType Type, long[] Shape, double[] Values)>> Expected = [];
    private static readonly Dictionary<string, Func<In, Tensor[]>> Cases = DefineCases();

    static OperationTests()
    {
        using var document = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(AppContext.BaseDirectory, "data", "operations.json")));
        foreach (var input in document.RootElement.GetProperty("inputs").EnumerateObject()) Inputs[input.Name] = Decode(input.Value);
        foreach (var expected in document.RootElement.GetProperty("cases").EnumerateObject())
        {
            Expected[expected.Name] = [.. expected.Value.EnumerateArray().Select(Decode)];
        }
    }

    public static TheoryData<string> Names => [.. Expected.Keys];

    [Theory]
    [MemberData(nameof(Names))]
    public void Operation_OnTheSameInputs_EqualsPyTorch(string name)
    {
        using var scope = NewDisposeScope();
        using var mode = no_grad();
        Assert.True(Cases.ContainsKey(name), $"data/operations.json has a case '{name}' that this test lacks");
        var actual = Cases[name](new In());
        var expected = Expected[name];
        Assert.Equal(expected.Count, actual.Length);
        for (var k = 0; k < actual.Length; k++)
        {
            var (type, shape, values) = expected[k];
            Assert.Equal(type, actual[k].dtype);
            Assert.Equal(shape, actual[k].shape);
            var tolerance = type switch { ScalarType.Float16 => 1e-3, ScalarType.BFloat16 => 1e-2, _ => 2e-6 };
            var elements = actual[k].to(float64).data<double>().ToArray();
            for (var e = 0; e < values.Length; e++)
            {
                var (want, got) = (values[e], elements[e]);
                Assert.True(
                    want.Equals(got) || Math.Abs(want - got) <= tolerance * (1 + Math.Abs(want)),
                    string.Create(CultureInfo.InvariantCulture, $"{name}, result {k}, element {e}: {got} instead of {want}"));
            }
        }
    }

    [Fact]
    public void Cases_AreAllInTheData() => Assert.Empty(Cases.Keys.Except(Expected.Keys, StringComparer.Ordinal));

    private static Dictionary<string, Func<In, Tensor[]>> DefineCases()
    {
        var cases = new Dictionary<string, Func<In, Tensor[]>>(StringComparer.Ordinal);

        // An operation as a method and as a function of torch has to give the same.
        void Unary(string name, Func<In, Tensor> input, Func<Tensor, Tensor> method, Func<Tensor, Tensor>? function = null, Func<Tensor, Tensor>? inPlace = null) =>
            cases.Add(name, g =>
            {
                var result = method(input(g));
                Same(name, result, function?.Invoke(input(g)));
                if (inPlace is null) return [result];
                var target = input(g).clone();
                Assert.Same(target, inPlace(target));
                Same(name, result, target);
                return [result];
            });

        Unary("abs", g => g.w, t => t.abs(), abs, t => t.abs_());
        Unary("ceil", g => g.w, t => t.ceil(), ceil, t => t.ceil_());
        Unary("cos", g => g.w, t => t.cos(), cos, t => t.cos_());
        Unary("cosh", g => g.w, t => t.cosh(), cosh);
        Unary("erf", g => g.w, t => t.erf(), erf, t => t.erf_());
        Unary("erfc", g => g.w, t => t.erfc(), erfc, t => t.erfc_());
        Unary("exp", g => g.w, t => t.exp(), exp, t => t.exp_());
        Unary("exp2", g => g.w, t => t.exp2(), exp2, t => t.exp2_());
        Unary("expm1", g => g.w, t => t.expm1(), expm1, t => t.expm1_());
        Unary("floor", g => g.w, t => t.floor(), floor, t => t.floor_());
        Unary("frac", g => g.w, t => t.frac(), frac, t => t.frac_());
        Unary("neg", g => g.w, t => t.neg(), neg, t => t.neg_());
        Unary("relu", g => g.w, t => t.relu(), t => F.relu(t), t => t.relu_());
        Unary("round", g => g.w, t => t.round(), t => round(t), t => t.round_());
        Unary("sigmoid", g => g.w, t => t.sigmoid(), sigmoid, t => t.sigmoid_());
        Unary("sign", g => g.w, t => t.sign(), sign, t => t.sign_());
        Unary("silu", g => g.w, t => t.silu(), t => F.silu(t), t => t.silu_());
        Unary("sin", g => g.w, t => t.sin(), sin, t => t.sin_());
        Unary("sinh", g => g.w, t => t.sinh(), sinh, t => t.sinh_());
        Unary("square", g => g.w, t => t.square(), square);
        Unary("tan", g => g.w, t => t.tan(), tan, t => t.tan_());
        Unary("tanh", g => g.w, t => t.tanh(), tanh, t => t.tanh_());
        Unary("trunc", g => g.w, t => t.trunc(), trunc, t => t.trunc_());
        Unary("isfinite", g => g.w, t => t.isfinite(), isfinite);
        Unary("isinf", g => g.w, t => t.isinf(), isinf);
        Unary("isnan", g => g.w, t => t.isnan(), isnan);
        Unary("isneginf", g => g.w, t => t.isneginf(), isneginf);
        Unary("isposinf", g => g.w, t => t.isposinf(), isposinf);
        Unary("positive", g => g.w, t => t.positive(), positive);
        Unary("signbit", g => g.w, t => t.signbit(), signbit);
        Unary("log_sigmoid", g => g.w, t => t.log_sigmoid(), F.logsigmoid);
        Unary("acos", g => g.u, t => t.acos(), acos, t => t.acos_());
        Unary("asin", g => g.u, t => t.asin(), asin, t => t.asin_());
        Unary("atan", g => g.u, t => t.atan(), atan, t => t.atan_());
        Unary("erfinv", g => g.u, t => t.erfinv(), erfinv);
        Unary("lgamma", g => g.p, t => t.lgamma(), lgamma);
        Unary("log", g => g.p, t => t.log(), log, t => t.log_());
        Unary("log10", g => g.p, t => t.log10(), log10, t => t.log10_());
        Unary("log1p", g => g.p, t => t.log1p(), log1p, t => t.log1p_());
        Unary("log2", g => g.p, t => t.log2(), log2, t => t.log2_());
        Unary("reciprocal", g => g.p, t => t.reciprocal(), reciprocal, t => t.reciprocal_());
        Unary("rsqrt", g => g.p, t => t.rsqrt(), rsqrt, t => t.rsqrt_());
        Unary("sqrt", g => g.p, t => t.sqrt(), sqrt, t => t.sqrt_());
        Unary("bitwise_not", g => g.i, t => t.bitwise_not(), bitwise_not, t => t.bitwise_not_());
        Unary("logical_not", g => g.b, t => t.logical_not(), logical_not, t => t.logical_not_());
        Unary("trace", g => g.x, t => t.trace(), trace);
        Unary("round:decimals", g => g.x, t => t.round(2), t => round(t, 2), t => t.round_(2));
        Unary("nan_to_num", g => g.w, t => t.nan_to_num(5, 6, -7), t => nan_to_num(t, 5, 6, -7));
        Unary("clamp", g => g.x, t => t.clamp((Scalar)(-0.5), (Scalar)0.5), t => clamp(t, (Scalar)(-0.5), (Scalar)0.5), t => t.clamp_((Scalar)(-0.5), (Scalar)0.5));
        Unary("clamp:min", g => g.x, t => t.clamp(min: (Scalar)(-0.5)), t => t.clip((Scalar)(-0.5)), t => t.clamp_min_(-0.5));
        Unary("clamp_max", g => g.x, t => t.clamp_max(0.3), t => clamp_max(t, 0.3), t => t.clamp_max_(0.3));
        Unary("clamp_min", g => g.x, t => t.clamp_min(0.3), t => clamp_min(t, 0.3), t => t.clamp_min_(0.3));
        Unary("nansum", g => where(g.w.isinf(), zeros(1), g.w), t => t.nansum(), nansum);
        Unary("median", g => g.x, t => t.median(), median);

        void Binary(string name, Func<In, Tensor> left, Func<In, Tensor> right, Func<Tensor, Tensor, Tensor> method, Func<Tensor, Tensor, Tensor>? function = null, Func<Tensor, Tensor, Tensor>? inPlace = null) =>
            cases.Add(name, g =>
            {
                var result = method(left(g), right(g));
                Same(name, result, function?.Invoke(left(g), right(g)));
                if (inPlace is null) return [result];
                var target = left(g).clone();
                Assert.Same(target, inPlace(target, right(g)));
                Same(name, result, target);
                return [result];
            });

        void Comparison(string name, Func<Tensor, Tensor, Tensor> method, Func<Tensor, Tensor, Tensor> other, Func<Tensor, Scalar, Tensor> number, Func<Tensor, Scalar, Tensor> otherNumber, Func<Tensor, Tensor, Tensor> inPlace, Func<Tensor, Scalar, Tensor> inPlaceNumber)
        {
            Binary(name, g => g.i, g => g.j, method, other);
            Unary(name + ":number", g => g.i, t => number(t, 3), t => otherNumber(t, 3));
            cases.Add(name + "_", g => [inPlace(g.i.clone(), g.j)]);
            cases.Add(name + "_:number", g => [inPlaceNumber(g.i.clone(), 3)]);
        }

        Comparison("eq", eq, (s, t) => s == t, (t, n) => t.eq(n), (t, n) => t == n, (s, t) => s.eq_(t), (t, n) => t.eq_(n));
        Comparison("ne", ne, (s, t) => s != t, (t, n) => t.ne(n), (t, n) => t != n, (s, t) => s.ne_(t), (t, n) => t.ne_(n));
        Comparison("lt", lt, (s, t) => s < t, (t, n) => t.lt(n), (t, n) => n > t, (s, t) => s.lt_(t), (t, n) => t.lt_(n));
        Comparison("le", le, (s, t) => s <= t, (t, n) => t.le(n), (t, n) => n >= t, (s, t) => s.le_(t), (t, n) => t.le_(n));
        Comparison("gt", gt, (s, t) => s > t, (t, n) => t.gt(n), (t, n) => n < t, (s, t) => s.gt_(t), (t, n) => t.gt_(n));
        Comparison("ge", ge, (s, t) => s >= t, (t, n) => t.ge(n), (t, n) => n <= t, (s, t) => s.ge_(t), (t, n) => t.ge_(n));

        void Arithmetic(string name, Func<Tensor, Tensor, Tensor> method, Func<Tensor, Tensor, Tensor> other, Func<Tensor, Scalar, Tensor> number, Func<Tensor, Scalar, Tensor> otherNumber, Func<Tensor, Tensor, Tensor> inPlace, Func<Tensor, Scalar, Tensor> inPlaceNumber)
        {
            Binary(name, g => g.x, g => g.y, method, other, inPlace);
            Unary(name + ":number", g => g.x, t => number(t, 1.5), t => otherNumber(t, 1.5), t => inPlaceNumber(t, 1.5));
            Binary(name + ":integers", g => g.i, g => g.j, method, other, inPlace);
            cases.Add(name + "_", g => [inPlace(g.x.clone(), g.y)]);
            cases.Add(name + "_:number", g => [inPlaceNumber(g.x.clone(), 1.5)]);
        }

        Arithmetic("sub", sub, (s, t) => s - t, (t, n) => t.sub(n), (t, n) => t - n, (s, t) => s.sub_(t), (t, n) => t.sub_(n));
        Arithmetic("mul", mul, (s, t) => s * t, (t, n) => t.mul(n), (t, n) => t * n, (s, t) => s.mul_(t), (t, n) => t.mul_(n));
        Arithmetic("fmod", fmod, (s, t) => s.fmod(t), (t, n) => t.fmod(n), fmod, (s, t) => s.fmod_(t), (t, n) => t.fmod_(n));
        Arithmetic("remainder", remainder, (s, t) => s % t, (t, n) => t.remainder(n), (t, n) => t % n, (s, t) => s.remainder_(t), (t, n) => t.remainder_(n));

        Binary("atan2", g => g.x, g => g.y, (s, t) => s.atan2(t), atan2, (s, t) => s.atan2_(t));
        Binary("copysign", g => g.x, g => g.y, (s, t) => s.copysign(t), copysign, (s, t) => s.copysign_(t));
        Binary("fmax", g => g.x, g => g.y, (s, t) => s.fmax(t), fmax);
        Binary("fmin", g => g.x, g => g.y, (s, t) => s.fmin(t), fmin);
        Binary("hypot", g => g.x, g => g.y, (s, t) => s.hypot(t), hypot);
        Binary("logaddexp", g => g.x, g => g.y, (s, t) => s.logaddexp(t), logaddexp);
        Binary("maximum", g => g.x, g => g.y, (s, t) => s.maximum(t), maximum);
        Binary("minimum", g => g.x, g => g.y, (s, t) => s.minimum(t), minimum);
        Binary("bitwise_and", g => g.i.abs(), g => g.j, (s, t) => s.bitwise_and(t), bitwise_and, (s, t) => s.bitwise_and_(t));
        Binary("bitwise_or", g => g.i.abs(), g => g.j, (s, t) => s.bitwise_or(t), bitwise_or, (s, t) => s.bitwise_or_(t));
        Binary("bitwise_xor", g => g.i.abs(), g => g.j, (s, t) => s.bitwise_xor(t), bitwise_xor, (s, t) => s.bitwise_xor_(t));
        Binary("bitwise_left_shift", g => g.i.abs(), g => g.j, (s, t) => s.bitwise_left_shift(t), bitwise_left_shift, (s, t) => s.bitwise_left_shift_(t));
        Binary("bitwise_right_shift", g => g.i.abs(), g => g.j, (s, t) => s.bitwise_right_shift(t), bitwise_right_shift, (s, t) => s.bitwise_right_shift_(t));
        Binary("logical_and", g => g.b, g => g.c, (s, t) => s.logical_and(t), logical_and, (s, t) => s.logical_and_(t));
        Binary("logical_or", g => g.b, g => g.c, (s, t) => s.logical_or(t), logical_or, (s, t) => s.logical_or_(t));
        Binary("logical_xor", g => g.b, g => g.c, (s, t) => s.logical_xor(t), logical_xor, (s, t) => s.logical_xor_(t));
        Binary("pow", g => g.p, g => g.y, (s, t) => s.pow(t), pow, (s, t) => s.pow_(t));
        Unary("pow:number", g => g.p, t => t.pow(2.5), t => pow(t, 2.5), t => t.pow_(2.5));
        Binary("floor_divide", g => g.i, g => g.j, (s, t) => s.floor_divide(t), floor_divide, (s, t) => s.floor_divide_(t));
        Unary("floor_divide:number", g => g.i, t => t.floor_divide(4), null, t => t.floor_divide_(4));
        Binary("xlogy", g => g.x, g => g.p, (s, t) => s.xlogy(t), xlogy, (s, t) => s.xlogy_(t));
        Unary("xlogy:number", g => g.x, t => t.xlogy(2.0), null, t => t.xlogy_(2.0));
        Binary("add", g => g.x, g => g.y, (s, t) => s.add(t), (s, t) => s + t, (s, t) => s.add_(t));
        Binary("add:alpha", g => g.x, g => g.y, (s, t) => s.add(t, -0.5), (s, t) => torch.add(s, t, -0.5), (s, t) => s.add_(t, -0.5));
        Unary("add:number", g => g.x, t => t.add(2), t => t + 2, t => t.add_(2));
        Unary("add:number alpha", g => g.x, t => t.add(2.0, 3), t => torch.add(t, 2.0, 3), t => t.add_(2.0, 3));
        Binary("div", g => g.x, g => g.y, (s, t) => s.div(t), (s, t) => s / t, (s, t) => s.div_(t));
        Binary("div:integers", g => g.i, g => g.j, (s, t) => s.div(t), (s, t) => s / t);
        Binary("div:trunc", g => g.i, g => g.j, (s, t) => s.div(t, RoundingMode.trunc), (s, t) => div(s, t, RoundingMode.trunc), (s, t) => s.div_(t, RoundingMode.trunc));
        Unary("div:floor", g => g.x, t => t.div(0.3, RoundingMode.floor), t => div(t, 0.3, RoundingMode.floor), t => t.div_(0.3, RoundingMode.floor));
        Unary("clamp:tensors", g => g.x, t => t.clamp(new In().u - 1, new In().u), t => clamp(t, new In().u - 1, new In().u), t => t.clamp_(new In().u - 1, new In().u));
        Binary("addcmul", g => g.x, g => g.y, (s, t) => s.addcmul(t, new In().u, 0.5), (s, t) => addcmul(s, t, new In().u, 0.5), (s, t) => s.addcmul_(t, new In().u, 0.5));
        Binary("addcdiv", g => g.x, g => g.y, (s, t) => s.addcdiv(t, new In().p, 0.5), (s, t) => addcdiv(s, t, new In().p, 0.5), (s, t) => s.addcdiv_(t, new In().p, 0.5));
        Binary("lerp", g => g.x, g => g.y, (s, t) => s.lerp(t, new In().u), (s, t) => lerp(s, t, new In().u), (s, t) => s.lerp_(t, new In().u));
        Binary("where", g => g.x, g => g.y, (s, t) => s.where(new In().b, t), (s, t) => torch.where(new In().b, s, t));
        cases.Add("where:indices", g => torch.where(g.b));
        Unary("isclose", g => g.x, t => t.isclose(t + (1e-6 * arange(4.0).pow(4))), t => isclose(t, t + (1e-6 * arange(4.0).pow(4))));
        cases.Add("operators:number left", g => [1.5 - g.x, 2 / g.p, 3 * g.x, 4 + g.i]);
        cases.Add("operators:logic", g => [g.b & g.c, g.b | g.c, g.b ^ g.c, ~g.b, -g.x]);
        cases.Add("operators:remainder", g => [g.i % g.j, g.i % 3, g.x % 0.75]);
        cases.Add("operators:types", g => [g.i + 1, g.i + 1.5, g.i * g.b, g.half + 1, g.brain * 2.0]);

        Binary("matmul", g => g.a3, g => g.m, (s, t) => s.matmul(t), matmul);
        Binary("mm", g => g.x, g => g.m, (s, t) => s.mm(t), mm);
        Binary("bmm", g => g.a3, g => g.b3, (s, t) => s.bmm(t), bmm);
        Binary("mv", g => g.x, g => g.v, (s, t) => s.mv(t), mv);
        Binary("dot", g => g.v, g => g.v + 1, (s, t) => s.dot(t), dot);
        Binary("outer", g => g.z, g => g.v, (s, t) => s.outer(t), outer);
        Binary("inner", g => g.x, g => g.y, (s, t) => s.inner(t), inner);
        Unary("addmm", g => g.n, t => t.addmm(new In().x, new In().m, 0.5f, 2), t => addmm(t, new In().x, new In().m, 0.5f, 2), t => t.addmm_(new In().x, new In().m, 0.5f, 2));
        Unary("addmv", g => g.z, t => t.addmv(new In().x, new In().v, 0.5f, 2), null, t => t.addmv_(new In().x, new In().v, 0.5f, 2));
        Unary("addr", g => g.x, t => t.addr(new In().z, new In().v, 0.5f, 2), t => addr(t, new In().z, new In().v, 0.5f, 2), t => t.addr_(new In().z, new In().v, 0.5f, 2));
        Unary("addbmm", g => g.n, t => t.addbmm(new In().a3, new In().b3, 0.5f, 2), t => addbmm(t, new In().a3, new In().b3, 0.5f, 2), t => t.addbmm_(new In().a3, new In().b3, 0.5f, 2));
        Unary("baddbmm", g => g.c3, t => t.baddbmm(new In().a3, new In().b3, 0.5f, 2), t => baddbmm(t, new In().a3, new In().b3, 0.5f, 2));
        cases.Add("tensordot", g => [g.a3.tensordot(g.b3, [0, 2], [0, 1])]);
        cases.Add("einsum", g => [einsum("bij,bjk->ik", g.a3, g.b3)]);
        cases.Add("linalg.vector_norm", g => [linalg.vector_norm(g.x), linalg.vector_norm(g.a3, 3, [0, 2], true)]);

        cases.Add("sum", g => [g.x.sum(), g.i.sum(), g.b.sum(), sum(g.x, 1), g.a3.sum(0, 2, keepdim: true), g.x.sum(float64), g.a3.sum([1], keepdim: true), g.half.sum(0, type: float32)]);
        cases.Add("mean", g => [mean(g.x), g.a3.mean([0, 2]), g.x.mean([1], true, float64)]);
        cases.Add("prod", g => [g.x.prod(), g.x.prod(1, true), g.i.prod(0L)]);
        cases.Add("max", g => [max(g.x), max(g.x, g.y), .. Pair(g.x.max(1)), .. Pair(max(g.x, 0, true))]);
        cases.Add("min", g => [min(g.x), min(g.x, g.y), .. Pair(g.x.min(1)), .. Pair(min(g.x, 0, true))]);
        cases.Add("aminmax", g => [.. Pair(g.x.aminmax()), .. Pair(g.x.aminmax(1, true))]);
        cases.Add("amax", g => [g.x.amax(1), g.a3.amax([0, 2], keepdim: true)]);
        cases.Add("amin", g => [g.x.amin(1), g.a3.amin([0, 2], keepdim: true)]);
        cases.Add("argmax", g => [g.x.argmax(), argmax(g.x, 1, true)]);
        cases.Add("argmin", g => [g.x.argmin(), argmin(g.x, 1, true)]);
        cases.Add("all", g => [g.b.all(), all(g.b, 1), g.b.all(0, true)]);
        cases.Add("any", g => [g.b.any(), any(g.b, 1), g.b.any(0, true)]);
        cases.Add("logsumexp", g => [logsumexp(g.x, 1), g.x.logsumexp(0, true)]);
        cases.Add("norm", g => [g.x.norm(), norm(g.x, 1f), g.x.norm(1, true), norm(g.x, 0, p: 3)]);
        cases.Add("std", g => [g.x.std(), g.x.std(1), g.a3.std([0, 2], false, true), g.x.std(false)]);
        cases.Add("var", g => [g.x.var(), g.x.var(1), g.a3.var([0, 2], false, true), g.x.var(false)]);
        cases.Add("count_nonzero", g => [g.b.count_nonzero(), count_nonzero(g.b, [1])]);
        cases.Add("quantile", g => [g.x.quantile(tensor(new[] { 0.25f, 0.5f, 0.9f }), 1, true)]);
        cases.Add("cumsum", g => [cumsum(g.x, 1), g.i.cumsum(0), g.i.cumsum(0, float32)]);
        cases.Add("cumprod", g => [g.x.cumprod(1)]);
        cases.Add("logcumsumexp", g => [logcumsumexp(g.x, 1)]);
        cases.Add("softmax", g => [softmax(g.x, 1), F.softmax(g.half, 1, float32)]);
        cases.Add("log_softmax", g => [F.log_softmax(g.x, 1), g.brain.log_softmax(0, float32)]);
        cases.Add("topk", g => [.. Pair(g.x.topk(2)), .. Pair(topk(g.x, 2, 0, largest: false))]);
        cases.Add("sort", g => [.. Pair(g.x.sort()), .. Pair(sort(g.x, 0, descending: true)), .. Pair(g.j.sort(1, stable: true))]);
        cases.Add("argsort", g => [g.x.argsort(), argsort(g.x, 0, true)]);
        cases.Add("kthvalue", g => [.. Pair(g.x.kthvalue(2, 1))]);
        cases.Add("searchsorted", g => [searchsorted(g.sorted_values, g.x), searchsorted(g.sorted_values, g.x, out_int32: true, right: true)]);
        cases.Add("bucketize", g => [g.x.bucketize(g.sorted_values)]);
        cases.Add("bincount", g => [bincount(g.j.flatten(), minlength: 8), g.j.flatten().bincount(g.x.flatten())]);
        cases.Add("unique", g =>
        {
            var (values, inverse, counts) = g.j.unique(return_inverse: true, return_counts: true);
            var (slices, noInverse, noCounts) = cat([g.x, g.x]).unique(dim: 0);
            Assert.Null(noInverse);
            Assert.Null(noCounts);
            return [values, inverse!, counts!, slices];
        });
        cases.Add("isin", g => [g.i.isin(g.j)]);

        cases.Add("view", g => [g.x.view(2, 6), g.x.view(-1)]);
        cases.Add("view_as", g => [g.x.view_as(g.y.t().contiguous())]);
        cases.Add("reshape", g => [g.x.t().reshape(2, -1)]);
        cases.Add("permute", g => [g.a3.permute(2, 0, 1)]);
        cases.Add("expand", g => [g.v.expand(2, 4), g.z.unsqueeze(1).expand([3, 4], false)]);
        cases.Add("expand_as", g => [g.v.expand_as(g.x)]);
        cases.Add("broadcast_to", g => [g.v.broadcast_to(3, 4)]);
        cases.Add("broadcast_tensors", g => [.. broadcast_tensors(g.v, g.z.unsqueeze(1))]);
        cases.Add("as_strided", g => [g.x.as_strided([2, 2], [1, 3], 2)]);
        cases.Add("t", g => [g.x.t(), g.x.T, g.a3.mT]);
        cases.Add("transpose", g => [g.a3.transpose(0, -1)]);
        cases.Add("swapaxes", g => [g.a3.swapaxes(0, 1), g.a3.swapdims(1, 2)]);
        cases.Add("movedim", g => [g.a3.movedim([0, 1], [2, 0]), g.a3.moveaxis([0], [-1])]);
        cases.Add("unsqueeze", g => [g.x.unsqueeze(1), g.x.clone().unsqueeze_(-1)]);
        cases.Add("squeeze", g => [g.x.view(1, 3, 1, 4).squeeze(), g.x.view(1, 3, 1, 4).squeeze_(2)]);
        cases.Add("flatten", g => [g.a3.flatten(), g.a3.flatten(1), g.a3.flatten(0, 1), g.a3.ravel()]);
        cases.Add("unflatten", g => [g.m.unflatten(0, 2, 2)]);
        cases.Add("narrow", g => [g.x.narrow(1, 1, 2)]);
        cases.Add("slice", g => [g.x.slice(1, 0, 4, 2)]);
        cases.Add("select", g => [g.x.select(0, 1), g.x.select(1, -1)]);
        cases.Add("unfold", g => [g.x.unfold(1, 2, 1)]);
        cases.Add("diagonal", g => [g.x.diagonal(), g.a3.diagonal(1, 1, 2)]);
        cases.Add("diag", g => [g.v.diag(), g.x.diag(1)]);
        cases.Add("chunk", g => g.m.chunk(3, 1));
        cases.Add("split", g => [.. g.m.split(2, 1), .. g.m.split([1, 4], 1)]);
        cases.Add("tensor_split", g => [.. g.m.tensor_split(2, 1), .. g.m.tensor_split([1, 3], 1)]);
        cases.Add("unbind", g => [.. g.x.unbind(), .. g.x.unbind(1)]);
        cases.Add("repeat", g => [g.x.repeat(2, 1, 2)]);
        cases.Add("tile", g => [g.x.tile([2])]);
        cases.Add("flip", g => [g.x.flip(0, 1)]);
        cases.Add("roll", g => [g.x.roll(1), g.x.roll(1, 0), g.x.roll([1, 2], [0, 1])]);
        cases.Add("tril", g => [g.x.tril(), g.x.clone().tril_(1), g.a3.tril(-1)]);
        cases.Add("triu", g => [g.x.triu(), g.x.clone().triu_(1), g.a3.triu(-1)]);
        cases.Add("repeat_interleave", g => [g.x.repeat_interleave(2, 0), g.x.repeat_interleave(2), g.z.repeat_interleave(tensor(new long[] { 1, 0, 2 }))]);
        cases.Add("cat", g => [cat([g.x, g.y]), cat(new List<Tensor> { g.x, g.n }, 1)]);
        cases.Add("stack", g => [stack([g.x, g.y], 1)]);
        cases.Add("hstack", g => [hstack(g.x, g.n)]);
        cases.Add("vstack", g => [vstack([g.x, g.v])]);
        cases.Add("meshgrid", g => [.. meshgrid([g.v, g.z]), .. meshgrid([g.v, g.z], indexing: "xy")]);

        cases.Add("gather", g => [g.x.gather(0, g.index)]);
        cases.Add("scatter", g => [Checked(g.x.scatter(0, g.index[0..1], g.y), g.x.clone().scatter_(0, g.index[0..1], g.y))]);
        cases.Add("scatter_add", g => [Checked(g.x.scatter_add(0, g.index, g.y), g.x.clone().scatter_add_(0, g.index, g.y))]);
        cases.Add("index_select", g => [g.x.index_select(0, g.rows), index_select(g.x, 1, g.rows)]);
        cases.Add("index_add", g => [Checked(g.x.index_add(0, g.two, g.source, 2), g.x.clone().index_add_(0, g.two, g.source, 2))]);
        cases.Add("index_copy", g => [Checked(g.x.index_copy(0, g.two, g.source), g.x.clone().index_copy_(0, g.two, g.source))]);
        cases.Add("index_fill", g => [Checked(g.x.index_fill(1, g.two, -1.5), g.x.clone().index_fill_(1, g.two, -1.5))]);
        cases.Add("masked_fill", g => [Checked(g.x.masked_fill(g.b, float.NegativeInfinity), g.x.clone().masked_fill_(g.b, float.NegativeInfinity))]);
        cases.Add("masked_scatter", g => [Checked(g.x.masked_scatter(g.b, g.y), g.x.clone().masked_scatter_(g.b, g.y))]);
        cases.Add("masked_select", g => [g.x.masked_select(g.b)]);
        cases.Add("take", g => [g.x.take(tensor(new long[] { 0, 11, 5 }))]);
        cases.Add("take_along_dim", g => [g.x.take_along_dim(g.x.argsort(1), 1), g.x.take_along_dim(g.index)]);
        cases.Add("nonzero", g => [g.b.nonzero()]);
        cases.Add("argwhere", g => [g.b.argwhere()]);
        cases.Add("index:views", g =>
        [
            g.x[1], g.x[1, 2], g.x[TensorIndex.Colon, 1], g.x[1.., TensorIndex.Slice(step: 2)], g.x[TensorIndex.Ellipsis, -1],
            g.x[TensorIndex.None], g.x[^2.., TensorIndex.None, 1..3], g.x[^1, 0],
        ]);
        cases.Add("index:tensors", g =>
        [
            g.x[g.rows], g.x[g.b], g.x[g.rows, tensor(new long[] { 1, 2, 3 })], g.a3[TensorIndex.Colon, TensorIndex.Tensor(g.rows)],
            g.x[TensorIndex.Colon, TensorIndex.Tensor(g.b[0])],
        ]);
        cases.Add("index_put:views", g => Put(
            g,
            t => t[TensorIndex.Colon, 1] = g.z,
            t => t[2] = g.v,
            t => t[0, 3] = tensor(9f),
            t => t[1.., TensorIndex.Slice(null, null, 2)] = tensor(5f)));
        cases.Add("index_put:tensors", g => Put(g, t => t[g.two] = g.source, t => t[g.b] = tensor(3f), t => t.index_put_((Scalar)4.5, g.b)));
        cases.Add("index_put:accumulate", g => Put(g, t => t.index_put_(g.y, [TensorIndex.Tensor(g.rows)], accumulate: true)));

        cases.Add("F.linear", g => [F.linear(g.a3, g.x), F.linear(g.a3, g.x, g.z)]);
        cases.Add("gelu", g => [Checked(g.x.gelu(), F.gelu(g.x)), Checked(F.gelu(g.x, GELU.Approximate.tanh), g.x.clone().gelu_(GELU.Approximate.tanh))]);
        cases.Add("softplus", g => [F.softplus(g.x), g.x.softplus(2, 1)]);
        cases.Add("F.leaky_relu", g => [F.leaky_relu(g.x, 0.1)]);
        cases.Add("F.cross_entropy", g =>
        [
            F.cross_entropy(g.logits, g.targets), F.cross_entropy(g.logits, g.targets, reduction: nn.Reduction.Sum),
            F.cross_entropy(g.logits, g.targets, reduction: nn.Reduction.None), F.cross_entropy(g.logits, g.targets, g.class_weights, label_smoothing: 0.1),
            F.cross_entropy(g.logits, g.targets.clamp_min(0), ignore_index: 0),
        ]);
        cases.Add("F.nll_loss", g =>
        [
            F.nll_loss(g.logits.log_softmax(1), g.targets.clamp_min(0)),
            F.nll_loss(g.logits.log_softmax(1), g.targets.clamp_min(0), g.class_weights, nn.Reduction.None),
        ]);
        cases.Add("F.losses", g => [F.mse_loss(g.x, g.y), F.l1_loss(g.x, g.y, nn.Reduction.Sum), F.kl_div(g.x.log_softmax(1), g.y.log_softmax(1))]);
        cases.Add("F.layer_norm", g => [F.layer_norm(g.x, [4], g.v, eps: 1e-3)]);
        cases.Add("F.normalize", g => [F.normalize(g.x), F.normalize(g.x, 1, 0)]);
        cases.Add("F.one_hot", g => [F.one_hot(g.rows), F.one_hot(g.rows, 4)]);
        cases.Add("F.pad", g =>
        [
            F.pad(g.x, (1, 2), value: 7), F.pad(g.x, (0, 1, 2, 0)), F.pad(g.a3, [1, 1], PaddingModes.Reflect), F.pad(g.a3, [1, 2], PaddingModes.Replicate),
            F.pad(g.a3, [1, 1], PaddingModes.Circular),
        ]);
        cases.Add("F.attention", g =>
        [
            F.scaled_dot_product_attention(g.query, g.key, g.value), F.scaled_dot_product_attention(g.query, g.key, g.value, g.attention_mask),
            F.scaled_dot_product_attention(g.query, g.key, g.value, torch.where(g.attention_mask, tensor(0f), tensor(-2f))),
            F.scaled_dot_product_attention(g.query, g.key, g.value, is_casual: true),
        ]);

        cases.Add("to", g =>
        [
            g.x.@double(), g.x.half(), g.x.to(bfloat16), g.i.@float(), g.w[1.., ..2].@int(), g.x.@bool(), g.b.@long(), g.j.to_type(uint8), g.i.@char(),
            g.i.type(int16),
        ]);
        cases.Add("arange", _ => [arange(5), arange(1, 7, 2), arange(0.0, 1.0, 0.25), arange(3, int32)]);
        cases.Add("linspace", _ => [linspace(0, 1, 5), eye(2, 3), full([2, 2], 3, int64), full(2, 0.5)]);
        return cases;
    }

    private static Tensor[] Pair((Tensor, Tensor) pair) => [pair.Item1, pair.Item2];

    private static Tensor[] Put(In g, params Action<Tensor>[] changes) => Array.ConvertAll(changes, change =>
    {
        var tensor = g.x.clone();
        change(tensor);
        return tensor;
    });

    private static Tensor Checked(Tensor result, Tensor other)
    {
        Same("the in-place form", result, other);
        return result;
    }

    private static void Same(string name, Tensor result, Tensor? other)
    {
        if (other is not null) Assert.True(result.to(float64).allclose(other.to(float64), 1e-6, 1e-7, equal_nan: true), $"{name}: the forms differ");
    }

    private static (ScalarType, long[], double[]) Decode(JsonElement element)
    {
        var type = element.GetProperty("type").GetString() switch
        {
            "float32" => float32,
            "float64" => float64,
            "float16" => float16,
            "bfloat16" => bfloat16,
            "int64" => int64,
            "int32" => int32,
            "int16" => int16,
            "int8" => int8,
            "uint8" => uint8,
            "bool" => @bool,
            var other => throw new InvalidDataException(other),
        };
        var shape = element.GetProperty("shape").EnumerateArray().Select(size => size.GetInt64()).ToArray();
        var values = element.GetProperty("values").EnumerateArray().Select(Number).ToArray();
        return (type, shape, values);
    }

    private static double Number(JsonElement element) => element.ValueKind == JsonValueKind.Number ? element.GetDouble() : element.GetString() switch
    {
        "nan" => BitConverter.Int64BitsToDouble(0x7FF8L << 48), // as in PyTorch: .NET's has its sign bit set
        "inf" => double.PositiveInfinity,
        _ => double.NegativeInfinity,
    };

    /// <summary>The inputs by their names in make.py, made anew on every reading.</summary>
    private sealed class In
    {
        public Tensor x => Read();
        public Tensor y => Read();
        public Tensor u => Read();
        public Tensor p => Read();
        public Tensor w => Read();
        public Tensor i => Read();
        public Tensor j => Read();
        public Tensor b => Read();
        public Tensor c => Read();
        public Tensor v => Read();
        public Tensor z => Read();
        public Tensor m => Read();
        public Tensor n => Read();
        public Tensor a3 => Read();
        public Tensor b3 => Read();
        public Tensor c3 => Read();
        public Tensor index => Read();
        public Tensor rows => Read();
        public Tensor two => Read();
        public Tensor source => Read();
        public Tensor sorted_values => Read();
        public Tensor logits => Read();
        public Tensor targets => Read();
        public Tensor class_weights => Read();
        public Tensor query => Read();
        public Tensor key => Read();
        public Tensor value => Read();
        public Tensor attention_mask => Read();
        public Tensor half => Read();
        public Tensor brain => Read();

        private static Tensor Read([System.Runtime.CompilerServices.CallerMemberName] string name = "")
        {
            var (type, shape, values) = Inputs[name];
            return tensor(values, shape, dtype: type);
        }
    }
}
