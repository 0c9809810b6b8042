using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Http;

namespace Rho.Serving;

/// <summary>Whom a request counts for, in turns and limits: the API key where one is sent, else the address it comes from.</summary>
internal static class ClientIdentity
{
    public static string Of(HttpContext context)
    {
        var header = context.Request.Headers.Authorization.ToString();
        return header.Length > 0
            ? "key:" + Convert.ToHexString(SHA256.HashData(Encoding.UTF8.GetBytes(header)), 0, 8)
            : "address:" + context.Connection.RemoteIpAddress;
    }
}
