using TorchSharp.Native;
using static TorchSharp.Native.Interop;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    public partial class Tensor
    {
        public static Tensor operator +(Tensor left, Tensor right) => left.add(right);
        public static Tensor operator +(Tensor left, Scalar right) => Own(rho_add_number(left.Handle, right.Number, Number.One), left);
        public static Tensor operator +(Tensor left, int right) => Own(rho_add_number(left.Handle, Number.Of((long)right), Number.One), left);
        public static Tensor operator +(Tensor left, long right) => Own(rho_add_number(left.Handle, Number.Of(right), Number.One), left);
        public static Tensor operator +(Tensor left, float right) => Own(rho_add_number(left.Handle, Number.Of((double)right), Number.One), left);
        public static Tensor operator +(Tensor left, double right) => Own(rho_add_number(left.Handle, Number.Of(right), Number.One), left);
        public static Tensor operator +(Scalar left, Tensor right) => Own(rho_add_number(right.Handle, left.Number, Number.One), right);
        public static Tensor operator +(int left, Tensor right) => Own(rho_add_number(right.Handle, Number.Of((long)left), Number.One), right);
        public static Tensor operator +(long left, Tensor right) => Own(rho_add_number(right.Handle, Number.Of(left), Number.One), right);
        public static Tensor operator +(float left, Tensor right) => Own(rho_add_number(right.Handle, Number.Of((double)left), Number.One), right);
        public static Tensor operator +(double left, Tensor right) => Own(rho_add_number(right.Handle, Number.Of(left), Number.One), right);

        public static Tensor operator -(Tensor left, Tensor right) => left.sub(right);
        public static Tensor operator -(Tensor left, Scalar right) => Own(rho_sub_number(left.Handle, right.Number), left);
        public static Tensor operator -(Tensor left, int right) => Own(rho_sub_number(left.Handle, Number.Of((long)right)), left);
        public static Tensor operator -(Tensor left, long right) => Own(rho_sub_number(left.Handle, Number.Of(right)), left);
        public static Tensor operator -(Tensor left, float right) => Own(rho_sub_number(left.Handle, Number.Of((double)right)), left);
        public static Tensor operator -(Tensor left, double right) => Own(rho_sub_number(left.Handle, Number.Of(right)), left);
        public static Tensor operator -(Scalar left, Tensor right) => Own(rho_rsub_number(right.Handle, left.Number), right);
        public static Tensor operator -(int left, Tensor right) => Own(rho_rsub_number(right.Handle, Number.Of((long)left)), right);
        public static Tensor operator -(long left, Tensor right) => Own(rho_rsub_number(right.Handle, Number.Of(left)), right);
        public static Tensor operator -(float left, Tensor right) => Own(rho_rsub_number(right.Handle, Number.Of((double)left)), right);
        public static Tensor operator -(double left, Tensor right) => Own(rho_rsub_number(right.Handle, Number.Of(left)), right);

        public static Tensor operator *(Tensor left, Tensor right) => left.mul(right);
        public static Tensor operator *(Tensor left, Scalar right) => Own(rho_mul_number(left.Handle, right.Number), left);
        public static Tensor operator *(Tensor left, int right) => Own(rho_mul_number(left.Handle, Number.Of((long)right)), left);
        public static Tensor operator *(Tensor left, long right) => Own(rho_mul_number(left.Handle, Number.Of(right)), left);
        public static Tensor operator *(Tensor left, float right) => Own(rho_mul_number(left.Handle, Number.Of((double)right)), left);
        public static Tensor operator *(Tensor left, double right) => Own(rho_mul_number(left.Handle, Number.Of(right)), left);
        public static Tensor operator *(Scalar left, Tensor right) => Own(rho_mul_number(right.Handle, left.Number), right);
        public static Tensor operator *(int left, Tensor right) => Own(rho_mul_number(right.Handle, Number.Of((long)left)), right);
        public static Tensor operator *(long left, Tensor right) => Own(rho_mul_number(right.Handle, Number.Of(left)), right);
        public static Tensor operator *(float left, Tensor right) => Own(rho_mul_number(right.Handle, Number.Of((double)left)), right);
        public static Tensor operator *(double left, Tensor right) => Own(rho_mul_number(right.Handle, Number.Of(left)), right);

        public static Tensor operator /(Tensor left, Tensor right) => left.div(right);
        public static Tensor operator /(Tensor left, Scalar right) => Own(rho_div_number(left.Handle, right.Number, 0), left);
        public static Tensor operator /(Tensor left, int right) => Own(rho_div_number(left.Handle, Number.Of((long)right), 0), left);
        public static Tensor operator /(Tensor left, long right) => Own(rho_div_number(left.Handle, Number.Of(right), 0), left);
        public static Tensor operator /(Tensor left, float right) => Own(rho_div_number(left.Handle, Number.Of((double)right), 0), left);
        public static Tensor operator /(Tensor left, double right) => Own(rho_div_number(left.Handle, Number.Of(right), 0), left);
        public static Tensor operator /(Scalar left, Tensor right) => Own(rho_rdiv_number(right.Handle, left.Number), right);
        public static Tensor operator /(int left, Tensor right) => Own(rho_rdiv_number(right.Handle, Number.Of((long)left)), right);
        public static Tensor operator /(long left, Tensor right) => Own(rho_rdiv_number(right.Handle, Number.Of(left)), right);
        public static Tensor operator /(float left, Tensor right) => Own(rho_rdiv_number(right.Handle, Number.Of((double)left)), right);
        public static Tensor operator /(double left, Tensor right) => Own(rho_rdiv_number(right.Handle, Number.Of(left)), right);

        public static Tensor operator %(Tensor left, Tensor right) => left.remainder(right);
        public static Tensor operator %(Tensor left, Scalar right) => Own(rho_remainder_number(left.Handle, right.Number), left);
        public static Tensor operator %(Tensor left, int right) => Own(rho_remainder_number(left.Handle, Number.Of((long)right)), left);
        public static Tensor operator %(Tensor left, long right) => Own(rho_remainder_number(left.Handle, Number.Of(right)), left);
        public static Tensor operator %(Tensor left, float right) => Own(rho_remainder_number(left.Handle, Number.Of((double)right)), left);
        public static Tensor operator %(Tensor left, double right) => Own(rho_remainder_number(left.Handle, Number.Of(right)), left);

        public static Tensor operator ==(Tensor left, Tensor right) => left.eq(right);
        public static Tensor operator ==(Tensor left, Scalar right) => left.eq(right);
        public static Tensor operator ==(Scalar left, Tensor right) => right.eq(left);
        public static Tensor operator !=(Tensor left, Tensor right) => left.ne(right);
        public static Tensor operator !=(Tensor left, Scalar right) => left.ne(right);
        public static Tensor operator !=(Scalar left, Tensor right) => right.ne(left);
        public static Tensor operator <(Tensor left, Tensor right) => left.lt(right);
        public static Tensor operator <(Tensor left, Scalar right) => left.lt(right);
        public static Tensor operator <(Scalar left, Tensor right) => right.gt(left);
        public static Tensor operator <=(Tensor left, Tensor right) => left.le(right);
        public static Tensor operator <=(Tensor left, Scalar right) => left.le(right);
        public static Tensor operator <=(Scalar left, Tensor right) => right.ge(left);
        public static Tensor operator >(Tensor left, Tensor right) => left.gt(right);
        public static Tensor operator >(Tensor left, Scalar right) => left.gt(right);
        public static Tensor operator >(Scalar left, Tensor right) => right.lt(left);
        public static Tensor operator >=(Tensor left, Tensor right) => left.ge(right);
        public static Tensor operator >=(Tensor left, Scalar right) => left.ge(right);
        public static Tensor operator >=(Scalar left, Tensor right) => right.le(left);

        public static Tensor operator &(Tensor left, Tensor right) => left.bitwise_and(right);
        public static Tensor operator |(Tensor left, Tensor right) => left.bitwise_or(right);
        public static Tensor operator ^(Tensor left, Tensor right) => left.bitwise_xor(right);
        public static Tensor operator ~(Tensor left) => left.bitwise_not();
        public static Tensor operator -(Tensor tensor) => tensor.neg();

        public static explicit operator bool(Tensor value) => value.ToBoolean();
        public static explicit operator byte(Tensor value) => value.ToByte();
        public static explicit operator sbyte(Tensor value) => value.ToSByte();
        public static explicit operator short(Tensor value) => value.ToInt16();
        public static explicit operator int(Tensor value) => value.ToInt32();
        public static explicit operator long(Tensor value) => value.ToInt64();
        public static explicit operator float(Tensor value) => value.ToSingle();
        public static explicit operator double(Tensor value) => value.ToDouble();

        public static implicit operator Tensor(bool value) => tensor(value);
        public static implicit operator Tensor(byte value) => tensor(value);
        public static implicit operator Tensor(sbyte value) => tensor(value);
        public static implicit operator Tensor(short value) => tensor(value);
        public static implicit operator Tensor(int value) => tensor(value);
        public static implicit operator Tensor(long value) => tensor(value);
        public static implicit operator Tensor(float value) => tensor(value);
        public static implicit operator Tensor(double value) => tensor(value);
        public static implicit operator Tensor(Scalar scalar) => Own(rho_scalar_tensor(scalar.Number, (int)scalar.Type, (int)DeviceType.CPU, -1, 0));
        public static implicit operator Tensor(bool[] value) => tensor(value);
        public static implicit operator Tensor(byte[] value) => tensor(value);
        public static implicit operator Tensor(sbyte[] value) => tensor(value);
        public static implicit operator Tensor(short[] value) => tensor(value);
        public static implicit operator Tensor(int[] value) => tensor(value);
        public static implicit operator Tensor(long[] value) => tensor(value);
        public static implicit operator Tensor(float[] value) => tensor(value);
        public static implicit operator Tensor(double[] value) => tensor(value);
    }
}
