using Rho.Serving.Engine;

namespace Rho.Serving.Tests;

public sealed class BlockPoolTests
{
    private static int[] Tokens(int seed) => [.. Enumerable.Range(0, 16).Select(i => (seed * 100) + i)];

    [Fact]
    public void Reuse_SameBeginning_FindsTheBlocks_OtherBeginningDoesNot()
    {
        var pool = new BlockPool(8);
        var blocks = new List<int>();
        long chain = 0;
        for (var i = 0; i < 3; i++)
        {
            Assert.True(pool.TryTake(out var block));
            blocks.Add(block);
            chain = pool.Fill(block, chain, Tokens(i));
        }

        long found = 0;
        Assert.True(pool.TryReuse(ref found, Tokens(0), out var first));
        Assert.Equal(blocks[0], first);
        Assert.True(pool.TryReuse(ref found, Tokens(1), out var second));
        Assert.Equal(blocks[1], second);
        Assert.False(pool.TryReuse(ref found, Tokens(7), out _));

        // The same 16 tokens elsewhere in a text are not the same content.
        long beginning = 0;
        Assert.False(pool.TryReuse(ref beginning, Tokens(1), out _));
        pool.Release([first, second]);
        pool.Release(blocks);
        Assert.Equal(8, pool.Free);
    }

    [Fact]
    public void Take_WhenContentMustGo_TakesEndsBeforeBeginnings()
    {
        var pool = new BlockPool(3);
        var blocks = new List<int>();
        long chain = 0;
        for (var i = 0; i < 3; i++)
        {
            pool.TryTake(out var block);
            blocks.Add(block);
            chain = pool.Fill(block, chain, Tokens(i));
        }

        var held = blocks.ToArray();
        pool.Release(blocks);
        pool.TryTake(out var taken);
        Assert.Equal(held[2], taken);
        long found = 0;
        Assert.True(pool.TryReuse(ref found, Tokens(0), out _));
        Assert.True(pool.TryReuse(ref found, Tokens(1), out _));
        Assert.False(pool.TryReuse(ref found, Tokens(2), out _));
        Assert.False(pool.TryTake(out _));
    }

    [Fact]
    public void RandomUse_NeverLosesOrDoublesABlock()
    {
        var random = new Random(11);
        var pool = new BlockPool(40);
        var sequences = new List<(List<int> Blocks, long Chain)>();
        for (var step = 0; step < 20_000; step++)
        {
            if (sequences.Count == 0 || (sequences.Count < 60 && random.Next(3) > 0))
            {
                var blocks = new List<int>();
                long chain = 0;
                for (var i = 0; i < random.Next(1, 6); i++)
                {
                    var tokens = Tokens(random.Next(3));
                    if (pool.TryReuse(ref chain, tokens, out var block))
                    {
                        blocks.Add(block);
                    }
                    else if (pool.TryTake(out block))
                    {
                        blocks.Add(block);
                        chain = pool.Fill(block, chain, tokens);
                    }
                }

                sequences.Add((blocks, chain));
            }
            else
            {
                var index = random.Next(sequences.Count);
                pool.Release(sequences[index].Blocks);
                sequences.RemoveAt(index);
            }

            var held = sequences.SelectMany(sequence => sequence.Blocks).Distinct().Count();
            Assert.Equal(40 - held, pool.Free);
        }
    }
}
