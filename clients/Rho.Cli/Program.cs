using Rho.Cli;
using Rho.Cli.Terminal;

NativeEnvironment.SetDefaults();
using var interruption = new Interruption();
return await CommandLine.RunAsync(args, interruption);
