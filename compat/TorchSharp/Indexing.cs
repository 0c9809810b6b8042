using static TorchSharp.torch;

namespace TorchSharp;

/// <summary>Indexing expressions as views and gathers, with the semantics of PyTorch's tensor[...].</summary>
internal static class Indexing
{
    internal static Tensor Get(Tensor self, TensorIndex[] indices)
    {
        var (view, tensors) = View(self, indices);
        if (tensors is null) return view;
        using (view) return Op.index__Tensor.Call(view, Arg.Optional(tensors));
    }

    internal static void Set(Tensor self, TensorIndex[] indices, Tensor value)
    {
        var (view, tensors) = View(self, indices);
        using (view)
        {
            if (tensors is null) view.copy_(value);
            else Op.index_put_.InPlace(view, Arg.Optional(tensors), value, false);
        }
    }

    private static (Tensor View, Tensor?[]? Tensors) View(Tensor self, TensorIndex[] indices)
    {
        var consumed = indices.Count(i => i.What is TensorIndex.IndexKind.Single or TensorIndex.IndexKind.Slice or TensorIndex.IndexKind.Tensor);
        var result = self.alias();
        List<Tensor?> tensors = [];
        var dim = 0;

        void Step(Tensor next)
        {
            result.Dispose();
            result = next;
        }

        foreach (var index in indices)
        {
            switch (index.What)
            {
                case TensorIndex.IndexKind.None:
                    Step(result.unsqueeze(dim++));
                    break;
                case TensorIndex.IndexKind.Ellipsis:
                    dim += (int)self.Dimensions - consumed;
                    break;
                case TensorIndex.IndexKind.Single:
                    Step(result.select(dim, index.Start!.Value));
                    break;
                case TensorIndex.IndexKind.Slice:
                    Step(Op.slice__Tensor.Call(result, (long)dim++, index.Start, index.Stop, index.Step ?? 1));
                    break;
                default:
                    while (tensors.Count < dim) tensors.Add(null);
                    tensors.Add(index.Indices);
                    dim++;
                    break;
            }
        }

        return (result, tensors.Count == 0 ? null : [.. tensors]);
    }
}
