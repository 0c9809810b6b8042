using TorchSharp.Native;
using static TorchSharp.Native.Interop;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    public partial class Tensor
    {
        // Elementwise, of one tensor
        public Tensor abs() => Own(rho_abs(Handle), this);
        public Tensor acos() => Own(rho_acos(Handle), this);
        public Tensor asin() => Own(rho_asin(Handle), this);
        public Tensor atan() => Own(rho_atan(Handle), this);
        public Tensor bitwise_not() => Own(rho_bitwise_not(Handle), this);
        public Tensor ceil() => Own(rho_ceil(Handle), this);
        public Tensor cos() => Own(rho_cos(Handle), this);
        public Tensor cosh() => Own(rho_cosh(Handle), this);
        public Tensor erf() => Own(rho_erf(Handle), this);
        public Tensor erfc() => Own(rho_erfc(Handle), this);
        public Tensor erfinv() => Own(rho_erfinv(Handle), this);
        public Tensor exp() => Own(rho_exp(Handle), this);
        public Tensor exp2() => Own(rho_exp2(Handle), this);
        public Tensor expm1() => Own(rho_expm1(Handle), this);
        public Tensor floor() => Own(rho_floor(Handle), this);
        public Tensor frac() => Own(rho_frac(Handle), this);
        public Tensor isfinite() => Own(rho_isfinite(Handle), this);
        public Tensor isinf() => Own(rho_isinf(Handle), this);
        public Tensor isnan() => Own(rho_isnan(Handle), this);
        public Tensor isneginf() => Own(rho_isneginf(Handle), this);
        public Tensor isposinf() => Own(rho_isposinf(Handle), this);
        public Tensor lgamma() => Own(rho_lgamma(Handle), this);
        public Tensor log() => Own(rho_log(Handle), this);
        public Tensor log10() => Own(rho_log10(Handle), this);
        public Tensor log1p() => Own(rho_log1p(Handle), this);
        public Tensor log2() => Own(rho_log2(Handle), this);
        public Tensor log_sigmoid() => Own(rho_log_sigmoid(Handle), this);
        public Tensor logical_not() => Own(rho_logical_not(Handle), this);
        public Tensor neg() => Own(rho_neg(Handle), this);
        public Tensor positive() => Own(rho_positive(Handle), this);
        public Tensor reciprocal() => Own(rho_reciprocal(Handle), this);
        public Tensor relu() => Own(rho_relu(Handle), this);
        public Tensor rsqrt() => Own(rho_rsqrt(Handle), this);
        public Tensor sigmoid() => Own(rho_sigmoid(Handle), this);
        public Tensor sign() => Own(rho_sign(Handle), this);
        public Tensor signbit() => Own(rho_signbit(Handle), this);
        public Tensor silu() => Own(rho_silu(Handle), this);
        public Tensor sin() => Own(rho_sin(Handle), this);
        public Tensor sinh() => Own(rho_sinh(Handle), this);
        public Tensor sqrt() => Own(rho_sqrt(Handle), this);
        public Tensor square() => Own(rho_square(Handle), this);
        public Tensor tan() => Own(rho_tan(Handle), this);
        public Tensor tanh() => Own(rho_tanh(Handle), this);
        public Tensor trace() => Own(rho_trace(Handle), this);
        public Tensor trunc() => Own(rho_trunc(Handle), this);

        public Tensor abs_() => Self(rho_abs_(Handle));
        public Tensor acos_() => Self(rho_acos_(Handle));
        public Tensor asin_() => Self(rho_asin_(Handle));
        public Tensor atan_() => Self(rho_atan_(Handle));
        public Tensor bitwise_not_() => Self(rho_bitwise_not_(Handle));
        public Tensor ceil_() => Self(rho_ceil_(Handle));
        public Tensor cos_() => Self(rho_cos_(Handle));
        public Tensor cosh_() => Self(rho_cosh_(Handle));
        public Tensor erf_() => Self(rho_erf_(Handle));
        public Tensor erfc_() => Self(rho_erfc_(Handle));
        public Tensor exp_() => Self(rho_exp_(Handle));
        public Tensor exp2_() => Self(rho_exp2_(Handle));
        public Tensor expm1_() => Self(rho_expm1_(Handle));
        public Tensor floor_() => Self(rho_floor_(Handle));
        public Tensor frac_() => Self(rho_frac_(Handle));
        public Tensor log_() => Self(rho_log_(Handle));
        public Tensor log10_() => Self(rho_log10_(Handle));
        public Tensor log1p_() => Self(rho_log1p_(Handle));
        public Tensor log2_() => Self(rho_log2_(Handle));
        public Tensor logical_not_() => Self(rho_logical_not_(Handle));
        public Tensor neg_() => Self(rho_neg_(Handle));
        public Tensor reciprocal_() => Self(rho_reciprocal_(Handle));
        public Tensor relu_() => Self(rho_relu_(Handle));
        public Tensor rsqrt_() => Self(rho_rsqrt_(Handle));
        public Tensor sigmoid_() => Self(rho_sigmoid_(Handle));
        public Tensor sign_() => Self(rho_sign_(Handle));
        public Tensor silu_() => Self(rho_silu_(Handle));
        public Tensor sin_() => Self(rho_sin_(Handle));
        public Tensor sinh_() => Self(rho_sinh_(Handle));
        public Tensor sqrt_() => Self(rho_sqrt_(Handle));
        public Tensor tan_() => Self(rho_tan_(Handle));
        public Tensor tanh_() => Self(rho_tanh_(Handle));
        public Tensor trunc_() => Self(rho_trunc_(Handle));
        public Tensor zero_() => Self(rho_zero_(Handle));

        // Of two tensors
        public Tensor atan2(Tensor other) => Own(rho_atan2(Handle, other.Handle), this, other);
        public Tensor bitwise_and(Tensor other) => Own(rho_bitwise_and(Handle, other.Handle), this, other);
        public Tensor bitwise_left_shift(Tensor other) => Own(rho_bitwise_left_shift(Handle, other.Handle), this, other);
        public Tensor bitwise_or(Tensor other) => Own(rho_bitwise_or(Handle, other.Handle), this, other);
        public Tensor bitwise_right_shift(Tensor other) => Own(rho_bitwise_right_shift(Handle, other.Handle), this, other);
        public Tensor bitwise_xor(Tensor other) => Own(rho_bitwise_xor(Handle, other.Handle), this, other);
        public Tensor bmm(Tensor batch2) => Own(rho_bmm(Handle, batch2.Handle), this, batch2);
        public Tensor copysign(Tensor other) => Own(rho_copysign(Handle, other.Handle), this, other);
        public Tensor dot(Tensor target) => Own(rho_dot(Handle, target.Handle), this, target);
        public Tensor eq(Tensor target) => target is null ? (Tensor)false : Own(rho_eq(Handle, target.Handle), this, target);
        public Tensor floor_divide(Tensor other) => Own(rho_floor_divide(Handle, other.Handle), this, other);
        public Tensor fmax(Tensor other) => Own(rho_fmax(Handle, other.Handle), this, other);
        public Tensor fmin(Tensor other) => Own(rho_fmin(Handle, other.Handle), this, other);
        public Tensor fmod(Tensor target) => Own(rho_fmod(Handle, target.Handle), this, target);
        public Tensor ge(Tensor target) => Own(rho_ge(Handle, target.Handle), this, target);
        public Tensor gt(Tensor target) => Own(rho_gt(Handle, target.Handle), this, target);
        public Tensor hypot(Tensor other) => Own(rho_hypot(Handle, other.Handle), this, other);
        public Tensor inner(Tensor vec2) => Own(rho_inner(Handle, vec2.Handle), this, vec2);
        public Tensor le(Tensor target) => Own(rho_le(Handle, target.Handle), this, target);
        public Tensor logaddexp(Tensor other) => Own(rho_logaddexp(Handle, other.Handle), this, other);
        public Tensor logical_and(Tensor other) => Own(rho_logical_and(Handle, other.Handle), this, other);
        public Tensor logical_or(Tensor other) => Own(rho_logical_or(Handle, other.Handle), this, other);
        public Tensor logical_xor(Tensor other) => Own(rho_logical_xor(Handle, other.Handle), this, other);
        public Tensor lt(Tensor target) => Own(rho_lt(Handle, target.Handle), this, target);
        public Tensor matmul(Tensor target) => Own(rho_matmul(Handle, target.Handle), this, target);
        public Tensor maximum(Tensor other) => Own(rho_maximum(Handle, other.Handle), this, other);
        public Tensor minimum(Tensor other) => Own(rho_minimum(Handle, other.Handle), this, other);
        public Tensor mm(Tensor target) => Own(rho_mm(Handle, target.Handle), this, target);
        public Tensor mul(Tensor target) => Own(rho_mul(Handle, target.Handle), this, target);
        public Tensor mv(Tensor target) => Own(rho_mv(Handle, target.Handle), this, target);
        public Tensor ne(Tensor target) => Own(rho_ne(Handle, target.Handle), this, target);
        public Tensor outer(Tensor vec2) => Own(rho_outer(Handle, vec2.Handle), this, vec2);
        public Tensor pow(Tensor exponent) => Own(rho_pow(Handle, exponent.Handle), this, exponent);
        public Tensor remainder(Tensor target) => Own(rho_remainder(Handle, target.Handle), this, target);
        public Tensor sub(Tensor target) => Own(rho_sub(Handle, target.Handle), this, target);
        public Tensor xlogy(Tensor y) => Own(rho_xlogy(Handle, y.Handle), this, y);

        public Tensor atan2_(Tensor other) => Self(rho_atan2_(Handle, other.Handle), other);
        public Tensor bitwise_and_(Tensor other) => Self(rho_bitwise_and_(Handle, other.Handle), other);
        public Tensor bitwise_left_shift_(Tensor other) => Self(rho_bitwise_left_shift_(Handle, other.Handle), other);
        public Tensor bitwise_or_(Tensor other) => Self(rho_bitwise_or_(Handle, other.Handle), other);
        public Tensor bitwise_right_shift_(Tensor other) => Self(rho_bitwise_right_shift_(Handle, other.Handle), other);
        public Tensor bitwise_xor_(Tensor other) => Self(rho_bitwise_xor_(Handle, other.Handle), other);
        public Tensor copysign_(Tensor other) => Self(rho_copysign_(Handle, other.Handle), other);
        public Tensor eq_(Tensor target) => Self(rho_eq_(Handle, target.Handle), target);
        public Tensor floor_divide_(Tensor other) => Self(rho_floor_divide_(Handle, other.Handle), other);
        public Tensor fmod_(Tensor target) => Self(rho_fmod_(Handle, target.Handle), target);
        public Tensor ge_(Tensor target) => Self(rho_ge_(Handle, target.Handle), target);
        public Tensor gt_(Tensor target) => Self(rho_gt_(Handle, target.Handle), target);
        public Tensor le_(Tensor target) => Self(rho_le_(Handle, target.Handle), target);
        public Tensor logical_and_(Tensor other) => Self(rho_logical_and_(Handle, other.Handle), other);
        public Tensor logical_or_(Tensor other) => Self(rho_logical_or_(Handle, other.Handle), other);
        public Tensor logical_xor_(Tensor other) => Self(rho_logical_xor_(Handle, other.Handle), other);
        public Tensor lt_(Tensor target) => Self(rho_lt_(Handle, target.Handle), target);
        public Tensor mul_(Tensor target) => Self(rho_mul_(Handle, target.Handle), target);
        public Tensor ne_(Tensor target) => Self(rho_ne_(Handle, target.Handle), target);
        public Tensor pow_(Tensor exponent) => Self(rho_pow_(Handle, exponent.Handle), exponent);
        public Tensor remainder_(Tensor target) => Self(rho_remainder_(Handle, target.Handle), target);
        public Tensor sub_(Tensor target) => Self(rho_sub_(Handle, target.Handle), target);
        public Tensor xlogy_(Tensor y) => Self(rho_xlogy_(Handle, y.Handle), y);

        // Of a tensor and a number
        public Tensor clamp_max(Scalar max) => Own(rho_clamp_max_number(Handle, max.Number), this);
        public Tensor clamp_min(Scalar min) => Own(rho_clamp_min_number(Handle, min.Number), this);
        public Tensor eq(Scalar target) => Own(rho_eq_number(Handle, target.Number), this);
        public Tensor floor_divide(Scalar other) => Own(rho_floor_divide_number(Handle, other.Number), this);
        public Tensor fmod(Scalar scalar) => Own(rho_fmod_number(Handle, scalar.Number), this);
        public Tensor ge(Scalar target) => Own(rho_ge_number(Handle, target.Number), this);
        public Tensor gt(Scalar target) => Own(rho_gt_number(Handle, target.Number), this);
        public Tensor le(Scalar target) => Own(rho_le_number(Handle, target.Number), this);
        public Tensor lt(Scalar target) => Own(rho_lt_number(Handle, target.Number), this);
        public Tensor mul(Scalar target) => Own(rho_mul_number(Handle, target.Number), this);
        public Tensor ne(Scalar target) => Own(rho_ne_number(Handle, target.Number), this);
        public Tensor pow(Scalar exponent) => Own(rho_pow_number(Handle, exponent.Number), this);
        public Tensor remainder(Scalar scalar) => Own(rho_remainder_number(Handle, scalar.Number), this);
        public Tensor sub(Scalar target) => Own(rho_sub_number(Handle, target.Number), this);
        public Tensor xlogy(Scalar y) => Own(rho_xlogy_number(Handle, y.Number), this);

        public Tensor clamp_max_(Scalar max) => Self(rho_clamp_max_number_(Handle, max.Number));
        public Tensor clamp_min_(Scalar min) => Self(rho_clamp_min_number_(Handle, min.Number));
        public Tensor eq_(Scalar target) => Self(rho_eq_number_(Handle, target.Number));
        public Tensor floor_divide_(Scalar other) => Self(rho_floor_divide_number_(Handle, other.Number));
        public Tensor fmod_(Scalar scalar) => Self(rho_fmod_number_(Handle, scalar.Number));
        public Tensor ge_(Scalar target) => Self(rho_ge_number_(Handle, target.Number));
        public Tensor gt_(Scalar target) => Self(rho_gt_number_(Handle, target.Number));
        public Tensor le_(Scalar target) => Self(rho_le_number_(Handle, target.Number));
        public Tensor lt_(Scalar target) => Self(rho_lt_number_(Handle, target.Number));
        public Tensor mul_(Scalar target) => Self(rho_mul_number_(Handle, target.Number));
        public Tensor ne_(Scalar target) => Self(rho_ne_number_(Handle, target.Number));
        public Tensor pow_(Scalar exponent) => Self(rho_pow_number_(Handle, exponent.Number));
        public Tensor remainder_(Scalar scalar) => Self(rho_remainder_number_(Handle, scalar.Number));
        public Tensor sub_(Scalar target) => Self(rho_sub_number_(Handle, target.Number));
        public Tensor xlogy_(Scalar y) => Self(rho_xlogy_number_(Handle, y.Number));

        // Other names for the above
        public Tensor subtract(Scalar target) => sub(target);
        public Tensor subtract(Tensor target) => sub(target);
        public Tensor multiply(Scalar target) => mul(target);
        public Tensor multiply(Tensor target) => mul(target);
        public Tensor negative() => neg();
        public Tensor absolute() => abs();
        public Tensor not_equal(Tensor target) => ne(target);
        public Tensor less(Tensor target) => lt(target);
        public Tensor less_equal(Tensor target) => le(target);
        public Tensor greater(Tensor target) => gt(target);
        public Tensor greater_equal(Tensor target) => ge(target);
        public Tensor subtract_(Scalar target) => sub_(target);
        public Tensor subtract_(Tensor target) => sub_(target);
        public Tensor equal(Tensor target) => eq(target);
        public Tensor absolute_() => abs_();
        public Tensor not_equal_(Tensor target) => ne_(target);
        public Tensor less_equal_(Tensor target) => le_(target);

        public Tensor add(Tensor target) => Own(rho_add(Handle, target.Handle, Number.One), this, target);
        public Tensor add(Tensor target, Scalar alpha) => Own(rho_add(Handle, target.Handle, alpha.Number), this, target);
        public Tensor add(Scalar scalar) => Own(rho_add_number(Handle, scalar.Number, Number.One), this);
        public Tensor add(Scalar scalar, Scalar alpha) => Own(rho_add_number(Handle, scalar.Number, alpha.Number), this);
        public Tensor add_(Tensor target) => Self(rho_add_(Handle, target.Handle, Number.One), target);
        public Tensor add_(Tensor target, Scalar alpha) => Self(rho_add_(Handle, target.Handle, alpha.Number), target);
        public Tensor add_(Scalar scalar) => Self(rho_add_number_(Handle, scalar.Number, Number.One));
        public Tensor add_(Scalar scalar, Scalar alpha) => Self(rho_add_number_(Handle, scalar.Number, alpha.Number));

        public Tensor div(Tensor target, RoundingMode rounding_mode = RoundingMode.None) => Own(rho_div(Handle, target.Handle, (int)rounding_mode), this, target);
        public Tensor div(Scalar target, RoundingMode rounding_mode = RoundingMode.None) => Own(rho_div_number(Handle, target.Number, (int)rounding_mode), this);
        public Tensor div_(Tensor target, RoundingMode rounding_mode = RoundingMode.None) => Self(rho_div_(Handle, target.Handle, (int)rounding_mode), target);
        public Tensor div_(Scalar target, RoundingMode rounding_mode = RoundingMode.None) => Self(rho_div_number_(Handle, target.Number, (int)rounding_mode));

        public Tensor round(long decimals = 0) => Own(rho_round(Handle, decimals), this);
        public Tensor round_(long decimals = 0) => Self(rho_round_(Handle, decimals));
        public Tensor nan_to_num(double nan = 0, double? posinf = null, double? neginf = null) =>
            Own(rho_nan_to_num(Handle, nan, posinf.GetValueOrDefault(), neginf.GetValueOrDefault(), (posinf.HasValue ? 1 : 0) | (neginf.HasValue ? 2 : 0)), this);

        public Tensor clamp(Scalar? min = null, Scalar? max = null) => Own(rho_clamp(Handle, Number.OrNone(min), Number.OrNone(max)), this);
        public Tensor clamp(Tensor? min = null, Tensor? max = null) => Own(rho_clamp_tensor(Handle, HandleOrZero(min), HandleOrZero(max)), this, min, max);
        public Tensor clamp_(Scalar? min = null, Scalar? max = null) => Self(rho_clamp_(Handle, Number.OrNone(min), Number.OrNone(max)));
        public Tensor clamp_(Tensor? min = null, Tensor? max = null) => Self(rho_clamp_tensor_(Handle, HandleOrZero(min), HandleOrZero(max)), min, max);
        public Tensor clip(Scalar? min = null, Scalar? max = null) => clamp(min, max);

        /// <summary>this + value tensor1 tensor2</summary>
        public Tensor addcmul(Tensor tensor1, Tensor tensor2, Scalar value) => Own(rho_addcmul(Handle, tensor1.Handle, tensor2.Handle, value.Number), this, tensor1, tensor2);
        public Tensor addcmul_(Tensor tensor1, Tensor tensor2, Scalar value) => Self(rho_addcmul_(Handle, tensor1.Handle, tensor2.Handle, value.Number), tensor1, tensor2);

        /// <summary>this + value tensor1 / tensor2</summary>
        public Tensor addcdiv(Tensor tensor1, Tensor tensor2, Scalar value) => Own(rho_addcdiv(Handle, tensor1.Handle, tensor2.Handle, value.Number), this, tensor1, tensor2);
        public Tensor addcdiv(Tensor tensor1, Tensor tensor2) => Own(rho_addcdiv(Handle, tensor1.Handle, tensor2.Handle, Number.One), this, tensor1, tensor2);
        public Tensor addcdiv_(Tensor tensor1, Tensor tensor2, Scalar value) => Self(rho_addcdiv_(Handle, tensor1.Handle, tensor2.Handle, value.Number), tensor1, tensor2);
        public Tensor addcdiv_(Tensor tensor1, Tensor tensor2) => Self(rho_addcdiv_(Handle, tensor1.Handle, tensor2.Handle, Number.One), tensor1, tensor2);

        /// <summary>this + weight (end - this)</summary>
        public Tensor lerp(Tensor end, Tensor weight) => Own(rho_lerp(Handle, end.Handle, weight.Handle), this, end, weight);
        public Tensor lerp_(Tensor end, Tensor weight) => Self(rho_lerp_(Handle, end.Handle, weight.Handle), end, weight);

        /// <summary>This where condition holds, y elsewhere.</summary>
        public Tensor where(Tensor condition, Tensor y) => Own(rho_where(condition.Handle, Handle, y.Handle), this, condition, y);

        public Tensor isclose(Tensor other, double rtol = 1e-05, double atol = 1e-08, bool nanEqual = false) =>
            Own(rho_isclose(Handle, other.Handle, rtol, atol, nanEqual ? 1 : 0), this, other);

        // beta this + alpha (product)
        public Tensor addmm(Tensor mat1, Tensor mat2, float beta = 1, float alpha = 1) => Own(rho_addmm(Handle, mat1.Handle, mat2.Handle, beta, alpha), this, mat1, mat2);
        public Tensor addmm_(Tensor mat1, Tensor mat2, float beta = 1, float alpha = 1) => Self(rho_addmm_(Handle, mat1.Handle, mat2.Handle, beta, alpha), mat1, mat2);
        public Tensor addmv(Tensor mat, Tensor vec, float beta = 1, float alpha = 1) => Own(rho_addmv(Handle, mat.Handle, vec.Handle, beta, alpha), this, mat, vec);
        public Tensor addmv_(Tensor mat, Tensor vec, float beta = 1, float alpha = 1) => Self(rho_addmv_(Handle, mat.Handle, vec.Handle, beta, alpha), mat, vec);
        public Tensor addr(Tensor vec1, Tensor vec2, float beta = 1, float alpha = 1) => Own(rho_addr(Handle, vec1.Handle, vec2.Handle, beta, alpha), this, vec1, vec2);
        public Tensor addr_(Tensor vec1, Tensor vec2, float beta = 1, float alpha = 1) => Self(rho_addr_(Handle, vec1.Handle, vec2.Handle, beta, alpha), vec1, vec2);
        public Tensor addbmm(Tensor batch1, Tensor batch2, float beta = 1, float alpha = 1) => Own(rho_addbmm(Handle, batch1.Handle, batch2.Handle, beta, alpha), this, batch1, batch2);
        public Tensor addbmm_(Tensor batch1, Tensor batch2, float beta = 1, float alpha = 1) => Self(rho_addbmm_(Handle, batch1.Handle, batch2.Handle, beta, alpha), batch1, batch2);
        public Tensor baddbmm(Tensor batch1, Tensor batch2, float beta = 1, float alpha = 1) => Own(rho_baddbmm(Handle, batch1.Handle, batch2.Handle, beta, alpha), this, batch1, batch2);

        public unsafe Tensor tensordot(Tensor b, long[] dims1, long[] dims2)
        {
            fixed (long* first = dims1, second = dims2) return Own(rho_tensordot(Handle, b.Handle, first, dims1.Length, second, dims2.Length), this, b);
        }

        public Tensor gelu() => Own(rho_gelu(Handle, 0), this);
        public Tensor gelu(Modules.GELU.Approximate approximate) => Own(rho_gelu(Handle, (int)approximate), this);
        public Tensor gelu_() => Self(rho_gelu_(Handle, 0));
        public Tensor gelu_(Modules.GELU.Approximate approximate) => Self(rho_gelu_(Handle, (int)approximate));
        public Tensor softplus(double beta = 1, double threshold = 20) => Own(rho_softplus(Handle, beta, threshold), this);
        public Tensor softmax(long dim, ScalarType? dtype = null) => Own(rho_softmax(Handle, dim, TypeOrNone(dtype)), this);
        public Tensor log_softmax(long dim, ScalarType? dtype = null) => Own(rho_log_softmax(Handle, dim, TypeOrNone(dtype)), this);

        // Filling
        public Tensor fill_(Scalar value) => Self(rho_fill_(Handle, value.Number));
        public Tensor uniform_(double from, double to, Generator? generator = null) => Self(rho_uniform_(Handle, from, to, HandleOrZero(generator)), generator);
        public Tensor normal_(double mean = 0, double std = 1, Generator? generator = null) => Self(rho_normal_(Handle, mean, std, HandleOrZero(generator)), generator);
        public Tensor exponential_(double lambda = 1, Generator? generator = null) => Self(rho_exponential_(Handle, lambda, HandleOrZero(generator)), generator);
        public Tensor random_(double from, double to, Generator? generator = null) => Self(rho_random_(Handle, (long)from, (long)to, HandleOrZero(generator)), generator);
        public Tensor bernoulli_(double p = 0.5, Generator? generator = null) => Self(rho_bernoulli_(Handle, p, HandleOrZero(generator)), generator);
        public Tensor bernoulli_(Tensor p, Generator? generator = null) => Self(rho_bernoulli_tensor_(Handle, p.Handle, HandleOrZero(generator)), p, generator);
        public Tensor bernoulli(Generator? generator = null) => Own(rho_bernoulli(Handle, HandleOrZero(generator)), this, generator);
        public Tensor multinomial(long num_samples, bool replacement = false, Generator? generator = null) =>
            Own(rho_multinomial(Handle, num_samples, replacement ? 1 : 0, HandleOrZero(generator)), this, generator);
    }
}
